//! Where to listen, as values that cannot say something unsafe without the word `danger`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use host::Disk;

use crate::sockets::{self, Reach, SocketError};
use crate::tls::{Identity, TlsVersions};

/// All listeners of one process.
#[derive(Debug)]
pub struct Listen {
    /// TCP, for clients elsewhere on the device, in containers and beyond; `None` for sockets alone.
    pub tcp: Option<Tcp>,
    /// The services' Unix socket.
    pub api_socket: Option<PathBuf>,
    /// The admin Unix socket, in a directory that only we may enter.
    pub admin_socket: PathBuf,
}

impl Listen {
    /// Whether the sockets' places are fit, by the checks that are made when they are opened. `made` is a directory
    /// that is there by then. Makes nothing.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn check_sockets(&self, disk: &dyn Disk, made: &Path) -> Result<(), SocketError> {
        let api = self.api_socket.iter().map(|path| (path, Reach::Everyone));
        let mut all = std::iter::once((&self.admin_socket, Reach::Owner)).chain(api);
        all.try_for_each(|(path, reach)| sockets::check_place(disk, path, reach, made))
    }
}

/// A TCP listener.
#[derive(Debug)]
pub struct Tcp {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) security: Security,
}

/// What protects a TCP listener.
#[derive(Debug)]
pub enum Security {
    /// TLS with the device's own certificate, which is under the barrier: the listener opens when the store does.
    Device {
        /// TLS 1.3, or 1.2 as well.
        versions: TlsVersions,
    },
    /// TLS with a certificate that the operator gave: the listener is open from the start, for health and seal-status
    /// alone until there are keys.
    Operator {
        /// The operator's certificate and key.
        identity: Identity,
        /// TLS 1.3, or 1.2 as well.
        versions: TlsVersions,
    },
    /// No TLS: tokens and secrets in clear, for tests on loopback.
    DangerPlainHttp,
}

impl Tcp {
    /// A listener at `addresses`; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// [`ListenRefused`]: no address, or clear text beyond loopback.
    pub fn new(addresses: Vec<SocketAddr>, security: Security) -> Result<Self, ListenRefused> {
        if addresses.is_empty() {
            return Err(ListenRefused::NoAddress);
        }
        if matches!(security, Security::DangerPlainHttp)
            && host::in_force("clear-text-refused")
            && let Some(address) = addresses.iter().find(|a| !a.ip().to_canonical().is_loopback())
        {
            return Err(ListenRefused::ClearText { address: *address });
        }
        Ok(Self { addresses, security })
    }
}

/// A listener that will not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenRefused {
    /// Nowhere to listen.
    #[error("a TCP listener needs at least one address")]
    NoAddress,
    /// Clear text on a network.
    #[error("{address} is not loopback: without TLS every token would be read on the way; remove danger_plain_http")]
    ClearText {
        /// The address.
        address: SocketAddr,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_stays_on_loopback() {
        let plain = |a: &str| Tcp::new(vec![a.parse().unwrap()], Security::DangerPlainHttp).err();
        for good in ["127.0.0.1:0", "127.9.9.9:8200", "[::1]:8200", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(plain(good), None, "{good}");
        }
        for bad in ["0.0.0.0:8200", "[::]:8200", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "192.168.1.2:8200"] {
            assert!(matches!(plain(bad), Some(ListenRefused::ClearText { .. })), "{bad}");
        }
        let two = vec!["127.0.0.1:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap()];
        assert!(Tcp::new(two.clone(), Security::DangerPlainHttp).is_err());
        assert!(Tcp::new(two, Security::Device { versions: TlsVersions::Tls13 }).is_ok());
        assert_eq!(Tcp::new(vec![], Security::DangerPlainHttp).err(), Some(ListenRefused::NoAddress));
    }
}
