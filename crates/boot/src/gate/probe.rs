//! Looking whether something outside is ready: never longer than an attempt's deadline, never a byte more than is
//! needed.

use std::io;
use std::time::Duration;

use host::Disk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::gate::{Database, NotReady, Pace, Standing, Watch, persist, until_lapsed};
use crate::plan::{HttpUrl, Probe};

/// One attempt, cut off after 5 s.
///
/// # Errors
/// [`ProbeFailure`] says what was seen instead.
pub async fn probe_once(disk: &dyn Disk, probe: &Probe) -> Result<Standing, ProbeFailure> {
    let attempt = async {
        match probe {
            Probe::Postgres { host, port } => return Ok(Database::Postgres.accepts_queries(host, *port).await?),
            Probe::Redis { host, port } => return Ok(Database::Redis.accepts_queries(host, *port).await?),
            Probe::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await.map(drop)?,
            Probe::Unix(path) => UnixStream::connect(path).await.map(drop)?,
            // Looked at, not opened: a pipe would block and a device might act.
            Probe::File(path) => disk.meta(path)?.map(drop).ok_or(ProbeFailure::Missing)?,
            Probe::Http(url) => http(url).await?,
        }
        Ok(Standing::unknown())
    };
    tokio::time::timeout(ATTEMPT, attempt).await.unwrap_or(Err(ProbeFailure::NoAnswer))
}

/// Attempts until one succeeds, a second apart; `None` waits for ever. Dropping the future ends it.
///
/// # Errors
/// The last failure, when the deadline has passed.
pub async fn probe_until(disk: &dyn Disk, probe: &Probe, deadline: Option<Duration>) -> Result<Standing, ProbeFailure> {
    // probe_once has a deadline of its own, and says what it saw when it passes.
    let pace = Pace { attempt: 2 * ATTEMPT, pause: PAUSE, total: deadline };
    persist(pace, || probe_once(disk, probe)).await.map_err(|gave_up| gave_up.last.unwrap_or(ProbeFailure::NoAnswer))
}

/// Looks on after a success; returns, with what is seen instead, when it is over.
pub async fn lapse_of(disk: &dyn Disk, probe: &Probe, standing: Standing) -> ProbeFailure {
    let seen = until_lapsed(WATCH, standing, || probe_once(disk, probe), ProbeFailure::is_certain).await;
    seen.unwrap_or(ProbeFailure::NoAnswer)
}

/// What was seen instead of readiness.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFailure {
    /// No connection.
    #[error("no connection")]
    Io(#[from] io::Error),
    /// No such file.
    #[error("not there")]
    Missing,
    /// Nothing within the attempt's time.
    #[error("no answer within 5 s")]
    NoAnswer,
    /// It takes no queries.
    #[error(transparent)]
    Database(#[from] NotReady),
    /// Another status than 2xx, or no HTTP.
    #[error("answered {status:?} instead of 2xx")]
    Status {
        /// The first line, escaped and cut.
        status: String,
    },
}

impl ProbeFailure {
    /// Whether it is certainly over, and no answer that may be another in a moment.
    fn is_certain(&self) -> bool {
        match self {
            Self::Io(e) => matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
            Self::Missing => true,
            Self::Database(e) => e.is_certain(),
            Self::NoAnswer | Self::Status { .. } => false,
        }
    }
}

/// GET by HTTP/1.0, of which only the status line is read. No redirect is followed: it would lead to who knows where.
async fn http(url: &HttpUrl) -> Result<(), ProbeFailure> {
    let mut stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    let request = format!("GET {} HTTP/1.0\r\nHost: {}:{}\r\nConnection: close\r\n\r\n", url.path, url.host, url.port);
    stream.write_all(request.as_bytes()).await?;
    let (mut line, mut filled) = ([0u8; 64], 0);
    while filled < line.len() && !line[..filled].contains(&b'\n') {
        match stream.read(&mut line[filled..]).await? {
            0 => break,
            n => filled += n,
        }
    }
    let text = String::from_utf8_lossy(&line[..filled]);
    let first = text.lines().next().unwrap_or_default();
    let mut words = first.split(' ');
    let version = words.next().is_some_and(|v| matches!(v, "HTTP/1.0" | "HTTP/1.1"));
    let success =
        words.next().is_some_and(|s| s.len() == 3 && s.starts_with('2') && s.bytes().all(|b| b.is_ascii_digit()));
    if version && success { Ok(()) } else { Err(ProbeFailure::Status { status: first.escape_default().to_string() }) }
}

const ATTEMPT: Duration = Duration::from_secs(5);
/// EdgeX's own pace.
const PAUSE: Duration = Duration::from_secs(1);
/// PostgreSQL starts a process for each question; a stop that closes its connections is seen at once.
const WATCH: Watch =
    Watch { attempt: Duration::from_secs(2 * ATTEMPT.as_secs()), pause: PAUSE, calm: Duration::from_secs(10) };

#[cfg(test)]
mod tests {
    use host::OsDisk;
    use tokio::net::{TcpListener, UnixListener};

    use super::*;

    async fn http_server(reply: &'static str) -> Probe {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut s, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let n = s.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /health HTTP/1.0\r\n"));
            s.write_all(reply.as_bytes()).await.unwrap();
        });
        format!("http://{address}/health").parse().unwrap()
    }

    #[tokio::test]
    async fn each_kind_succeeds_only_when_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let file: Probe = format!("file:{}", at("f").display()).parse().unwrap();
        assert!(matches!(probe_once(&OsDisk, &file).await, Err(ProbeFailure::Missing)));
        OsDisk.write_new(&at("f"), b"", 0o600, None).unwrap();
        probe_once(&OsDisk, &file).await.unwrap();

        let unix: Probe = format!("unix:{}", at("s").display()).parse().unwrap();
        assert!(probe_once(&OsDisk, &unix).await.is_err());
        let _listener = UnixListener::bind(at("s")).unwrap();
        probe_once(&OsDisk, &unix).await.unwrap();

        let listener = TcpListener::bind((testkit::loopback(), 0)).await.unwrap();
        let tcp: Probe = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
        probe_once(&OsDisk, &tcp).await.unwrap();
        // A child that another test starts just then has a copy of it until its exec, which would go on listening.
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
        drop(listener);
        assert!(matches!(probe_once(&OsDisk, &tcp).await, Err(ProbeFailure::Io(_))));
    }

    #[tokio::test]
    async fn only_2xx_is_ready() {
        probe_once(&OsDisk, &http_server("HTTP/1.1 204 No Content\r\n\r\n").await).await.unwrap();
        for bad in [
            "HTTP/1.1 503 no\r\n\r\n",
            "HTTP/1.1 302 x\r\nLocation: http://x/\r\n\r\n",
            "SSH-2.0-x 200\r\n",
            "",
            "\u{1b}[2J",
        ] {
            let seen = probe_once(&OsDisk, &http_server(bad).await).await;
            assert!(matches!(&seen, Err(ProbeFailure::Status { status }) if !status.contains('\u{1b}')), "{seen:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_does_not_hold_the_gate_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe: Probe = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        assert!(matches!(probe_once(&OsDisk, &probe).await, Err(ProbeFailure::NoAnswer)));
        let late = probe_until(&OsDisk, &"file:/nonexistent/x".parse().unwrap(), Some(Duration::from_secs(30))).await;
        assert!(matches!(late, Err(ProbeFailure::Missing)));
    }
}
