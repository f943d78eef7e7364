//! How a command on the same device finds the server: address, name and CA, in one public file.

use std::io;
use std::path::{Path, PathBuf};

use host::Disk;
use serde::{Deserialize, Serialize};

/// Its name in the run directory.
pub const ENDPOINT_FILE: &str = "endpoint.json";

/// Where the server is, and whom to trust there. Public.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `https://host:port`, or `unix:/path`.
    pub address: String,
    /// The name that the certificate must carry.
    pub server_name: String,
    /// Path of the CA's certificate, PEM.
    pub ca: PathBuf,
}

impl Endpoint {
    /// Writes `<run_dir>/endpoint.json`, 0644. Not synced: the run directory does not outlive the power.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, disk: &dyn Disk, run_dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        crate::file::place(disk, &run_dir.join(ENDPOINT_FILE), &text, 0o644, None)
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn read(disk: &dyn Disk, run_dir: &Path) -> Result<Self, EndpointError> {
        let path = run_dir.join(ENDPOINT_FILE);
        let text =
            disk.read(&path, MAX_BYTES).map_err(|cause| EndpointError::Unreadable { path: path.clone(), cause })?;
        serde_json::from_slice(&text).map_err(|cause| EndpointError::Malformed { path, cause })
    }
}

/// Why the server cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not there, or not for us.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Not what edgekeep writes.
    #[error("{} is not a file that edgekeep wrote", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it fails.
        #[source]
        cause: serde_json::Error,
    },
}

/// Three short strings.
const MAX_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let dir = testkit::scratch_dir();
        let endpoint = Endpoint {
            address: "https://127.0.0.1:8200".into(),
            server_name: "localhost".into(),
            ca: "/run/edgekeep/ca.pem".into(),
        };
        assert!(matches!(Endpoint::read(&host::OsDisk, dir.path()), Err(EndpointError::Unreadable { .. })));
        endpoint.write(&host::OsDisk, dir.path()).unwrap();
        endpoint.write(&host::OsDisk, dir.path()).unwrap();
        assert_eq!(Endpoint::read(&host::OsDisk, dir.path()).unwrap(), endpoint);
        host::OsDisk.replace(&dir.path().join(ENDPOINT_FILE), b"{}", 0o644, None).unwrap();
        assert!(matches!(Endpoint::read(&host::OsDisk, dir.path()), Err(EndpointError::Malformed { .. })));
    }
}
