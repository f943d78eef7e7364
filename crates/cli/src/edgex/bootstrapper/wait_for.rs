//! `waitFor`: until everything that was named is there, or the time is over.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use boot::gate::{Database, FileWatch, Pace, persist};
use boot::plan::Probe;
use client::{Trust, WebUrl};
use host::OsDisk;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;

use crate::failure::{Code, Failure};

/// Something that can be waited for.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// A connection is accepted.
    Port { host: String, port: u16, family: Family },
    /// It takes queries.
    Database { kind: Database, host: String, port: u16 },
    /// A connection is accepted.
    Socket(PathBuf),
    /// It is complete, as far as its length tells.
    File(PathBuf),
    /// It answers 2xx.
    Web(WebUrl),
}

/// The addresses of a host that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return WebUrl::parse(text).map(Self::Web).map_err(|e| e.to_string());
        }
        let family = match text.split_once(':') {
            Some(("tcp4", _)) => Family::V4,
            Some(("tcp6", _)) => Family::V6,
            _ => Family::Any,
        };
        match text.parse().map_err(|e: boot::plan::ProbeError| e.to_string())? {
            Probe::Tcp { host, port } => Ok(Self::Port { host, port, family }),
            Probe::Postgres { host, port } => Ok(Self::Database { kind: Database::Postgres, host, port }),
            Probe::Redis { host, port } => Ok(Self::Database { kind: Database::Redis, host, port }),
            Probe::Unix(path) => Ok(Self::Socket(path)),
            Probe::File(path) => Ok(Self::File(path)),
            Probe::Http(_) => Err(format!("{text:?} needs two slashes behind its scheme")),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port { host, port, .. } => write!(f, "tcp://{}:{port}", bracketed(host)),
            Self::Database { kind: Database::Redis, host, port } => write!(f, "redis://{}:{port}", bracketed(host)),
            Self::Database { host, port, .. } => write!(f, "postgres://{}:{port}", bracketed(host)),
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Web(url) => url.fmt(f),
        }
    }
}

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) timeout: Duration,
    pub(super) interval: Duration,
}

/// Waits for all of them at once. Dropping the future closes every connection that is under way.
///
/// # Errors
/// Those that were not there in time, each with what was seen last.
pub(super) async fn all(conditions: Vec<Condition>, patience: Patience) -> Result<(), Failure> {
    let trust = if conditions.iter().any(|c| matches!(c, Condition::Web(url) if url.is_tls())) {
        Some(super::trust::of_this_machine(&crate::locate::environment())?)
    } else {
        None
    };
    let mut waiting = JoinSet::new();
    for condition in conditions {
        waiting.spawn(one(condition, trust.clone(), patience));
    }
    let mut missing = Vec::new();
    while let Some(ended) = waiting.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(seen)) => missing.push(seen),
            Err(e) => return Err(Failure::fault(format!("an attempt ended by itself: {e}"))),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort();
    let what = format!("not there within {:?}: {}", patience.timeout, missing.join("; "));
    Err(Failure::new(Code::NotReady, what).hint("see whether what should provide it runs, or give it more time"))
}

async fn one(condition: Condition, trust: Option<Trust>, patience: Patience) -> Result<(), String> {
    let pace = Pace { attempt: DIAL, pause: patience.interval, total: Some(patience.timeout) };
    let watch = if let Condition::File(path) = &condition { Some(FileWatch::new(path)) } else { None };
    let attempt = || async {
        match (&condition, &watch) {
            (_, Some(watch)) => watch.look(&OsDisk).map_err(|e| host::with_causes(&e)),
            (Condition::Port { host, port, family }, _) => {
                dial(host, *port, *family).await.map_err(|e| host::with_causes(&e))
            }
            (Condition::Database { kind, host, port }, _) => {
                kind.accepts_queries(host, *port).await.map(drop).map_err(|e| host::with_causes(&e))
            }
            (Condition::Socket(path), _) => {
                UnixStream::connect(path).await.map(drop).map_err(|e| host::with_causes(&e))
            }
            (Condition::File(_), None) => Err("not looked at".to_owned()),
            (Condition::Web(url), _) => match url.status(trust.as_ref()).await {
                Ok(200..=299) => Ok(()),
                Ok(status) => Err(format!("answers {status}")),
                Err(e) => Err(host::with_causes(&e)),
            },
        }
    };
    persist(pace, attempt)
        .await
        .map_err(|gave_up| format!("{condition} ({})", gave_up.last.as_deref().unwrap_or("no answer")))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

async fn dial(host: &str, port: u16, family: Family) -> std::io::Result<()> {
    let fits = |a: &SocketAddr| match family {
        Family::Any => true,
        Family::V4 => a.is_ipv4(),
        Family::V6 => a.is_ipv6(),
    };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.filter(fits).collect();
    TcpStream::connect(&addresses[..]).await.map(drop)
}

/// The longest that a connection may take to be made and answered: one that hangs must leave time for another.
const DIAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Patience = Patience { timeout: Duration::from_millis(200), interval: Duration::from_millis(20) };

    #[test]
    fn edgexs_addresses_are_read() {
        for (text, shown) in [
            ("tcp://edgex-postgres:5432", "tcp://edgex-postgres:5432"),
            ("tcp6://[::1]:5432", "tcp://[::1]:5432"),
            ("postgres://edgex-postgres:5432", "postgres://edgex-postgres:5432"),
            ("redis://[::1]:6379", "redis://[::1]:6379"),
            ("file:///run/redis/conf/redis.conf", "file:///run/redis/conf/redis.conf"),
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("https://a/health", "https://a:443/health"),
        ] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), shown);
        }
        for bad in ["", "edgex-postgres:5432", "tcp://a", "udp://a:1", "http:a", "file://x"] {
            assert!(bad.parse::<Condition>().is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_given_up_and_its_connection_closed() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = format!("http://{}/", silent.local_addr().unwrap());
        let failure = all(vec![web.parse().unwrap()], PATIENCE).await.unwrap_err();
        assert_eq!(failure.code, Code::NotReady);
        assert_eq!(failure.fact, format!("not there within 200ms: {web} (no answer)"));
        let (mut stream, _) = silent.accept().await.unwrap();
        let mut request = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut request));
        ended.await.expect("the other end is still open").unwrap();
    }

    #[tokio::test]
    async fn one_that_is_missing_is_told_by_its_name() {
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let conditions = vec![
            format!("tcp://{}", there.local_addr().unwrap()).parse().unwrap(),
            "file:///nonexistent/x".parse().unwrap(),
        ];
        let failure = all(conditions, PATIENCE).await.unwrap_err();
        assert_eq!(failure.fact, "not there within 200ms: file:///nonexistent/x (not there)");
    }

    #[tokio::test]
    async fn the_family_that_was_named_is_the_one_that_is_dialled() {
        let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = v4.local_addr().unwrap().port();
        dial("127.0.0.1", port, Family::V4).await.unwrap();
        assert!(dial("127.0.0.1", port, Family::V6).await.is_err());
    }
}
