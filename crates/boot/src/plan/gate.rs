//! A gate: a name that others wait for, and what must be true before it opens.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{GateName, ServiceName};

/// One gate.
#[derive(Clone, Debug)]
pub struct GatePlan {
    /// Its name.
    pub name: GateName,
    /// All of these must hold. None at all means: as soon as edgekeep runs.
    pub needs: Vec<Need>,
    /// When its probes are given up and an alarm is raised; the gate stays shut. `None` is for ever, with an attempt a
    /// second.
    pub deadline: Option<Duration>,
    /// A TCP address that is opened with the gate, as a hint for those who know only that (EdgeX's `listenTcp`).
    pub hint: Option<SocketAddr>,
}

/// What a gate waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The store is unsealed and its server certificate is there.
    Store,
    /// Every service has its token, with a receipt.
    AllServices,
    /// This service has its token, with a receipt.
    Service(ServiceName),
    /// Every credential stands at its source and at all its copies.
    AllCredentials,
    /// Another gate, which stands before this one in the plan.
    Gate(GateName),
    /// Something outside answers.
    Probe(Probe),
}

/// How to see that something outside is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `tcp://host:port` (also `tcp4://`, `tcp6://`): a connection is accepted.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// `postgres://host:port`: it takes queries, by its own word.
    Postgres {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// `redis://host:port`: the same.
    Redis {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// `unix:///path`: a connection is accepted.
    Unix(PathBuf),
    /// `file:///path`: something is there.
    File(PathBuf),
    /// `http://host:port/path`: the answer is 2xx.
    Http(HttpUrl),
}

/// A plain HTTP address. `https` is not taken: nobody has said whom to trust there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Name or address.
    pub host: String,
    /// Port, 80 if not given.
    pub port: u16,
    /// Path and query, beginning with a slash.
    pub path: String,
}

impl FromStr for Probe {
    type Err = ProbeError;

    /// Reads EdgeX's form (`tcp://host:5432`, `file:///run/x`) and the short one (`tcp:host:5432`, `file:/run/x`).
    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let fault =
            |reason| ProbeError { text: text.chars().take(200).flat_map(char::escape_default).collect(), reason };
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(fault("it has a space or a control character"));
        }
        let (scheme, rest) = text.split_once(':').ok_or_else(|| fault("it has no scheme"))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let path = || {
            let plain = rest.starts_with('/') && rest.len() > 1 && rest.len() <= 4096;
            if plain { Ok(PathBuf::from(rest)) } else { Err(fault("the path is not absolute")) }
        };
        let at = || {
            let (host, port) = host_and_port(rest).ok_or_else(|| fault("it needs host:port"))?;
            Ok((host, port.ok_or_else(|| fault("it needs a port"))?))
        };
        match scheme {
            "tcp" | "tcp4" | "tcp6" => at().map(|(host, port)| Self::Tcp { host, port }),
            "postgres" => at().map(|(host, port)| Self::Postgres { host, port }),
            "redis" => at().map(|(host, port)| Self::Redis { host, port }),
            "unix" => path().map(Self::Unix),
            "file" => path().map(Self::File),
            "http" => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let (host, port) = host_and_port(authority).ok_or_else(|| fault("it needs a host"))?;
                let path = if path.is_empty() { "/" } else { path }.to_owned();
                Ok(Self::Http(HttpUrl { host, port: port.unwrap_or(80), path }))
            }
            _ => Err(fault("the scheme is not tcp, postgres, redis, unix, file or http")),
        }
    }
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bracketed = |h: &str| if h.contains(':') { format!("[{h}]") } else { h.to_owned() };
        match self {
            Self::Tcp { host, port } => write!(f, "tcp:{}:{port}", bracketed(host)),
            Self::Postgres { host, port } => write!(f, "postgres:{}:{port}", bracketed(host)),
            Self::Redis { host, port } => write!(f, "redis:{}:{port}", bracketed(host)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Http(u) => write!(f, "http://{}:{}{}", bracketed(&u.host), u.port, u.path),
        }
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`; ports from 1.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
        return None;
    }
    let port = match port {
        None => None,
        Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => Some(p.parse::<u16>().ok().filter(|p| *p > 0)?),
        Some(_) => return None,
    };
    Some((host.to_owned(), port))
}

/// Not something that can be probed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be probed: {reason}")]
pub struct ProbeError {
    /// What was written, escaped and cut.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        for (text, shown) in [
            ("tcp://edgex-postgres:5432", "tcp:edgex-postgres:5432"),
            ("tcp:127.0.0.1:6379", "tcp:127.0.0.1:6379"),
            ("tcp6://[::1]:6379", "tcp:[::1]:6379"),
            ("postgres://db:5432", "postgres:db:5432"),
            ("redis:[::1]:6379", "redis:[::1]:6379"),
            ("file:///run/ready", "file:/run/ready"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("http://host/health?x=1", "http://host:80/health?x=1"),
            ("http://host:8080", "http://host:8080/"),
        ] {
            assert_eq!(text.parse::<Probe>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn refuses_what_it_could_not_probe() {
        for text in [
            "",
            "tcp",
            "tcp:",
            "tcp:host",
            "redis:host",
            "postgres:host:0",
            "tcp:host:0",
            "tcp:host:70000",
            "tcp:host:+1",
            "tcp::1:2",
            "https://host/",
            "file:x",
            "file:/",
            "gopher://x",
            "http://",
            "http:///x",
            "tcp:[::1",
            "tcp:[x]:1",
            "tcp:ho st:1",
            "http://a\r\nb/",
        ] {
            assert!(text.parse::<Probe>().is_err(), "{text:?}");
        }
    }
}
