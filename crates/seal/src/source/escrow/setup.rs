//! Who keeps the key, where in it, and how it knows this device.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A holder, as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escrow {
    /// A name or an IP address.
    pub host: String,
    /// Its TLS port.
    pub port: u16,
    /// The certificate authorities that alone are believed, PEM.
    pub ca: PathBuf,
    /// The name in its certificate, where that is not the host.
    pub server_name: Option<String>,
    /// The device's own certificate, shown when the holder asks for one.
    pub identity: Option<Identity>,
    /// How the device logs in.
    pub login: Login,
    /// Where the key is.
    pub hold: Hold,
}

/// The device's certificate and its private key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The chain, the device's own first.
    pub certificate: PathBuf,
    /// The key; nobody else may read it.
    pub key: PathBuf,
}

/// How the device logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// By its certificate (auth method `cert`).
    Certificate {
        /// Below `auth/`.
        mount: EscrowName,
        /// The role to be matched; any that fits, if none is named.
        role: Option<EscrowName>,
    },
    /// By an AppRole.
    AppRole {
        /// Below `auth/`.
        mount: EscrowName,
        /// The RoleID; no secret.
        role_id: EscrowName,
        /// A file with the SecretID.
        secret_id: PathBuf,
    },
    /// By a user name and a password.
    Userpass {
        /// Below `auth/`.
        mount: EscrowName,
        /// The user.
        user: EscrowName,
        /// A file with the password.
        password: PathBuf,
    },
}

/// Where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A key of the transit engine, which decrypts what the slot has.
    Transit {
        /// The engine.
        mount: EscrowName,
        /// The key's name.
        key: EscrowName,
    },
    /// A secret of the kv engine: the field `ikm`, hexadecimal.
    Kv {
        /// The engine.
        mount: EscrowName,
        /// The secret's path.
        path: EscrowName,
        /// 1 or 2.
        version: u8,
    },
}

impl Escrow {
    /// All files that are read for it.
    pub fn files(&self) -> Vec<&Path> {
        let identity = self.identity.iter().flat_map(|i| [&i.certificate, &i.key]);
        let login = match &self.login {
            Login::Certificate { .. } => None,
            Login::AppRole { secret_id: file, .. } | Login::Userpass { password: file, .. } => Some(file),
        };
        std::iter::once(&self.ca).chain(identity).chain(login).map(PathBuf::as_path).collect()
    }

    /// `https://host:port`.
    pub fn address(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("https://{host}:{}", self.port)
    }
}

impl Hold {
    /// As a policy of the holder would name it; it stands in the slot.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Transit { mount, key } => format!("{mount}/decrypt/{key}"),
            Self::Kv { mount, path, version: 2 } => format!("{mount}/data/{path}"),
            Self::Kv { mount, path, .. } => format!("{mount}/{path}"),
        }
    }
}

/// A part of a path at the holder: names of letters, digits, `_`, `.` and `-`, with slashes between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscrowName(String);

impl FromStr for EscrowName {
    type Err = EscrowNameError;

    fn from_str(text: &str) -> Result<Self, EscrowNameError> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
        let sound = |name: &str| !name.is_empty() && name != "." && name != ".." && name.bytes().all(plain);
        if text.len() <= MAX_NAME_BYTES && text.split('/').all(sound) {
            Ok(Self(text.to_owned()))
        } else {
            Err(EscrowNameError)
        }
    }
}

impl fmt::Display for EscrowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a name at the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("names of letters, digits, `_`, `.` and `-` are expected, with slashes between them, {MAX_NAME_BYTES} in all")]
pub struct EscrowNameError;

const MAX_NAME_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_stay_where_they_are_put() {
        for good in ["transit", "device-07", "site/a.b/device_7", &"x".repeat(200)] {
            assert!(good.parse::<EscrowName>().is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "a b", "a?b", "a%2f", "\u{e9}", &"x".repeat(201)] {
            assert_eq!(bad.parse::<EscrowName>(), Err(EscrowNameError), "{bad}");
        }
    }
}
