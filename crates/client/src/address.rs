//! Where a store is: `https://host:8200`, `http://127.0.0.1:8200` or `unix:///run/edgekeep/api.sock`.

use std::fmt;
use std::path::PathBuf;

/// A parsed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TLS.
    Https {
        /// A name or an IP address, without the brackets of IPv6.
        host: String,
        /// 8200 where none was given.
        port: u16,
    },
    /// No protection on the wire.
    Http {
        /// A name or an IP address, without the brackets of IPv6.
        host: String,
        /// 8200 where none was given.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Absolute.
        path: PathBuf,
    },
}

impl Address {
    /// Parses an address. A slash at its end is ignored; any other path, a query or a user is refused.
    ///
    /// # Errors
    /// [`AddressError`] with the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let bad = |problem| AddressError { address: text.chars().take(256).collect(), problem };
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("it holds white space or control characters"));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') && path.len() > 1 {
                Ok(Self::Unix { path: PathBuf::from(path) })
            } else {
                Err(bad("the path of a Unix socket is absolute"))
            };
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it has no scheme"))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(bad("it holds more than host and port"));
        }
        let (host, port) = split_port(authority, DEFAULT_PORT).ok_or_else(|| bad("host or port is malformed"))?;
        match scheme {
            "https" => Ok(Self::Https { host, port }),
            "http" => Ok(Self::Http { host, port }),
            _ => Err(bad("its scheme is none of https, http and unix")),
        }
    }
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
pub(crate) fn split_port(authority: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(sound) {
        return None;
    }
    let port = match port {
        None => default,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|p| *p != 0)?,
        Some(_) => return None,
    };
    Some((host.to_owned(), port))
}

/// The port of Vault and OpenBao.
const DEFAULT_PORT: u16 = 8200;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Self::Https { host, port } => write!(f, "https://{}:{port}", brackets(host)),
            Self::Http { host, port } => write!(f, "http://{}:{port}", brackets(host)),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Not an address of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is no address of a store: {problem}")]
pub struct AddressError {
    /// What was written, at most 256 characters.
    pub address: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_that_people_write() {
        for (text, shown) in [
            ("https://vault.example:8201", "https://vault.example:8201"),
            ("https://127.0.0.1/", "https://127.0.0.1:8200"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("https://[fe80::1]", "https://[fe80::1]:8200"),
            ("unix:///run/edgekeep/api.sock", "unix:///run/edgekeep/api.sock"),
            ("unix:/run/a", "unix:///run/a"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn refuses_what_is_more_or_less_than_an_address() {
        for text in [
            "",
            "127.0.0.1:8200",
            "https://",
            "https://a:0",
            "https://a:99999",
            "https://a:+1",
            "https://a:b",
            "https://u@a",
            "https://a/v1",
            "https://a?b",
            "https://[::1",
            "https://[zz]",
            "https://[::1]80",
            "https://a b",
            "https://a\r\nX: y",
            "ftp://a",
            "unix:",
            "unix:run/a",
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }
}
