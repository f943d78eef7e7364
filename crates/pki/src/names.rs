//! The names that a server answers to, parsed once.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Most names of one certificate; a device has a handful.
pub const MAX_NAMES: usize = 64;

/// A DNS name in lower case or an IP address, as a subject alternative name (RFC 5280, 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerName {
    /// Labels of letters, digits, `-` and `_`. The underscore is no host name's (RFC 1123, 2.1), but compose files and
    /// Docker networks use it; wildcards are refused, for a device knows what it is called.
    Dns(String),
    /// An address a client can connect to.
    Ip(IpAddr),
}

impl ServerName {
    fn parse_dns(text: &str) -> Result<Self, NameError> {
        let refuse = |rule| NameError { name: text.chars().take(80).collect(), rule };
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() {
            return Err(refuse("is empty"));
        }
        if name.len() > 253 {
            return Err(refuse("is longer than 253 characters"));
        }
        if name.contains('*') {
            return Err(refuse("is a wildcard: write the name itself"));
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(refuse("has a label that is empty or longer than 63 characters"));
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                return Err(refuse("has a character other than letters, digits, '-', '_' and '.'"));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(refuse("has a label that begins or ends with '-'"));
            }
        }
        // RFC 6943, 3.1.1: what looks like an address is compared as one by some clients and as a name by others.
        if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
            return Err(refuse("ends in a number but is no IP address"));
        }
        Ok(Self::Dns(name))
    }
}

impl FromStr for ServerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
                Err(NameError { name: text.to_owned(), rule: "is an address to listen on, not one to connect to" })
            }
            Ok(ip) => Ok(Self::Ip(ip)),
            Err(_) => Self::parse_dns(text),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// At least one name and at most [`MAX_NAMES`], each once, in an order of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNames(BTreeSet<ServerName>);

impl ServerNames {
    /// From names already parsed; doubles fall together.
    ///
    /// # Errors
    /// [`NameError`] if there are none or too many.
    pub fn new(names: impl IntoIterator<Item = ServerName>) -> Result<Self, NameError> {
        let names: BTreeSet<_> = names.into_iter().collect();
        match names.len() {
            0 => Err(NameError { name: String::new(), rule: "a server needs at least one name" }),
            1..=MAX_NAMES => Ok(Self(names)),
            _ => Err(NameError { name: String::new(), rule: "a server has at most 64 names" }),
        }
    }

    /// From configured texts.
    ///
    /// # Errors
    /// [`NameError`] of the first text that is no name.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, NameError> {
        Self::new(texts.into_iter().map(str::parse).collect::<Result<Vec<_>, _>>()?)
    }

    /// The names, DNS names first.
    pub fn iter(&self) -> impl Iterator<Item = &ServerName> {
        self.0.iter()
    }

    /// Whether `name` is one of them.
    pub fn contains(&self, name: &ServerName) -> bool {
        self.0.contains(name)
    }
}

impl fmt::Display for ServerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            name.fmt(f)?;
        }
        Ok(())
    }
}

/// Not a name that a certificate can carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} {rule}")]
pub struct NameError {
    /// What was written, at most 80 characters.
    pub name: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_addresses() {
        let names = ServerNames::parse(["Edge-1.local.", "::1", "127.0.0.1", "edge-1.local", "edgex_core"]).unwrap();
        assert_eq!(names.to_string(), "edge-1.local, edgex_core, 127.0.0.1, ::1");
    }

    #[test]
    fn refuses_what_no_client_could_match() {
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "*.local",
            "a b",
            "a/b",
            "caf\u{e9}",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "10.0.0",
            "1",
            "127.0.0.1:8200",
            "a\n",
            "a\0b",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            assert!(bad.parse::<ServerName>().is_err(), "{bad:?}");
        }
        assert!(ServerNames::parse([]).is_err());
        let many: Vec<String> = (0..65).map(|i| format!("h{i}")).collect();
        assert!(ServerNames::parse(many.iter().map(String::as_str)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_read_prints_as_something_that_reads_the_same(text in ".{0,80}") {
            if let Ok(name) = text.parse::<ServerName>() {
                proptest::prop_assert_eq!(name.to_string().parse::<ServerName>().unwrap(), name);
            }
        }
    }
}
