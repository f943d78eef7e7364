//! Whether a database takes queries, asked in its own language. An open port says less: PostgreSQL's is open while it
//! recovers, Redis's while it loads its file, and that of a first boot may be another program's.

use std::io;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::Standing;

/// What is expected to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// PostgreSQL's protocol, version 3.
    Postgres,
    /// Redis's protocol.
    Redis,
    /// Something whose language is not known here: a connection must do.
    Unknown,
}

impl Database {
    /// What EdgeX calls it; or by the port that the protocol has by custom, where it is called nothing.
    pub fn named(name: Option<&str>, port: u16) -> Option<Self> {
        match (name, port) {
            (Some("postgres"), _) | (None, 5432) => Some(Self::Postgres),
            (Some("redis" | "redisdb"), _) | (None, 6379) => Some(Self::Redis),
            (Some("tcp"), _) | (None, _) => Some(Self::Unknown),
            (Some(_), _) => None,
        }
    }

    /// One question. The caller sets a deadline.
    ///
    /// # Errors
    /// [`NotReady`].
    pub async fn accepts_queries(self, host: &str, port: u16) -> Result<Standing, NotReady> {
        self.ask(TcpStream::connect((host, port)).await?).await
    }

    /// The same at a Unix socket.
    ///
    /// # Errors
    /// [`NotReady`].
    pub async fn accepts_queries_at(self, socket: &Path) -> Result<Standing, NotReady> {
        self.ask(UnixStream::connect(socket).await?).await
    }

    async fn ask<S>(self, mut stream: S) -> Result<Standing, NotReady>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (question, judge): (&[u8], Judge) = match self {
            _ if !host::in_force("gate-asks-the-database") => return Ok(Standing::unknown()),
            Self::Unknown => return Ok(Standing::unknown()),
            Self::Postgres => (STARTUP, postgres_verdict),
            Self::Redis => (b"PING\r\n", redis_verdict),
        };
        stream.write_all(question).await?;
        let (mut answer, mut filled) = ([0; MAX_ANSWER_BYTES], 0);
        loop {
            if let Some(verdict) = judge(&answer[..filled]) {
                // PostgreSQL ends what it refuses by itself: that tells nothing.
                let lasts = (self, answer[0]) != (Self::Postgres, b'E');
                return verdict.map(|()| if lasts { Standing::at(stream) } else { Standing::unknown() });
            }
            match stream.read(&mut answer[filled..]).await? {
                // Ended, or no room left for an end.
                0 => return Err(NotReady::Foreign),
                n => filled += n,
            }
        }
    }
}

impl NotReady {
    /// Whether it is certain that nobody takes queries there: nobody listens, or who does says so. Anything else may be
    /// a full queue, or a name that is looked up again in a moment.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Io(e) => e.kind() == io::ErrorKind::ConnectionRefused,
            Self::Starting { .. } => true,
            Self::Foreign => false,
        }
    }
}

/// It does not take queries.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// No connection.
    #[error("no connection")]
    Io(#[from] io::Error),
    /// It says itself that it is not ready: starting, recovering, loading, stopping.
    #[error("it answers, but takes no queries yet ({code})")]
    Starting {
        /// PostgreSQL's SQLSTATE, or the first word of Redis's error.
        code: String,
    },
    /// What answers speaks another language.
    #[error("what listens there is no such database")]
    Foreign,
}

/// The judgement of what has been read so far; `None` if more is needed.
pub type Verdict = Result<(), NotReady>;

type Judge = fn(&[u8]) -> Option<Verdict>;

/// As libpq's `PQping` judges: asked for a password is ready, and so is every refusal but "cannot connect now".
pub fn postgres_verdict(answer: &[u8]) -> Option<Verdict> {
    match answer.first()? {
        b'R' | b'v' => Some(Ok(())),
        b'E' => {
            // Int32 length, itself included; then fields, each a letter and a text that ends with NUL; then NUL (53.7).
            let length = u32::from_be_bytes(answer.get(1..5)?.try_into().ok()?);
            let Some(end) = usize::try_from(length)
                .ok()
                .map(|n| n.saturating_add(1))
                .filter(|n| (6..=MAX_ANSWER_BYTES).contains(n))
            else {
                return Some(Err(NotReady::Foreign));
            };
            let code = answer.get(5..end)?.split(|b| *b == 0).find_map(|field| field.strip_prefix(b"C"));
            Some(match code {
                Some(CANNOT_CONNECT_NOW) => Err(starting(CANNOT_CONNECT_NOW)),
                Some(_) => Ok(()),
                None => Err(NotReady::Foreign),
            })
        }
        _ => Some(Err(NotReady::Foreign)),
    }
}

/// Anything that only asks for a password is ready.
pub fn redis_verdict(answer: &[u8]) -> Option<Verdict> {
    let first = answer.first()?;
    if !matches!(first, b'+' | b'-') {
        return Some(Err(NotReady::Foreign));
    }
    let line = answer.split(|b| *b == b'\r').next().filter(|line| line.len() < answer.len())?;
    Some(match line.split(|b| *b == b' ').next().unwrap_or_default() {
        b"+PONG" | b"-NOAUTH" | b"-NOPERM" => Ok(()),
        word @ (b"-LOADING" | b"-BUSY" | b"-MASTERDOWN" | b"-DENIED" | b"-MISCONF") => Err(starting(&word[1..])),
        _ => Err(NotReady::Foreign),
    })
}

fn starting(code: &[u8]) -> NotReady {
    NotReady::Starting { code: String::from_utf8_lossy(code).into_owned() }
}

/// Protocol 3.0 (196608), user and database, each name and value ended by NUL, and NUL at the end (53.2.1). No such
/// user has to exist: the refusal is an answer.
const STARTUP: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0edgekeep\0database\0postgres\0\0";
/// SQLSTATE of "the database system is starting up" and its like.
const CANNOT_CONNECT_NOW: &[u8] = b"57P03";
/// PostgreSQL's longest refusal, with its fields for the source file and line, has a few hundred.
const MAX_ANSWER_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    fn error(code: &str) -> Vec<u8> {
        let mut out = vec![b'E', 0, 0, 0, 0];
        for field in ["SFATAL", "VFATAL", &format!("C{code}"), "Mwords"] {
            out.extend_from_slice(field.as_bytes());
            out.push(0);
        }
        out.push(0);
        let length = u32::try_from(out.len() - 1).unwrap();
        out[1..5].copy_from_slice(&length.to_be_bytes());
        out
    }

    #[test]
    fn the_question_has_the_length_that_it_says() {
        assert_eq!(u32::from_be_bytes(STARTUP[..4].try_into().unwrap()) as usize, STARTUP.len());
    }

    #[test]
    fn postgres_that_recovers_is_not_ready_and_one_that_asks_for_a_password_is() {
        assert!(matches!(postgres_verdict(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"), Some(Ok(()))));
        for code in ["28000", "28P01", "3D000", "53300"] {
            assert!(matches!(postgres_verdict(&error(code)), Some(Ok(()))), "{code}");
        }
        let recovering = postgres_verdict(&error("57P03"));
        assert!(matches!(&recovering, Some(Err(NotReady::Starting { code })) if code == "57P03"), "{recovering:?}");
        for foreign in [&b"HTTP/1.1 400"[..], b"E\0\0\0\x04", b"E\xff\xff\xff\xff", b"-ERR x\r\n"] {
            assert!(matches!(postgres_verdict(foreign), Some(Err(NotReady::Foreign))), "{foreign:?}");
        }
    }

    #[test]
    fn redis_that_loads_is_not_ready_and_one_that_asks_for_a_password_is() {
        for ready in ["+PONG\r\n", "-NOAUTH Authentication required.\r\n"] {
            assert!(matches!(redis_verdict(ready.as_bytes()), Some(Ok(()))), "{ready}");
        }
        let loading = redis_verdict(b"-LOADING Redis is loading the dataset in memory\r\n");
        assert!(matches!(&loading, Some(Err(NotReady::Starting { code })) if code == "LOADING"), "{loading:?}");
        for foreign in ["HTTP", "+OK\r\n", "-ERR unknown\r\n", "\0"] {
            assert!(matches!(redis_verdict(foreign.as_bytes()), Some(Err(NotReady::Foreign))), "{foreign}");
        }
    }

    /// Somebody who holds the port and gives every caller the next of these answers.
    async fn listening(answers: Vec<Vec<u8>>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _asked = stream.read(&mut [0; 64]).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn an_open_port_is_no_database() {
        let port = listening(vec![error("57P03"), b"HTTP/1.1 400\r\n".to_vec(), Vec::new(), error("28000")]).await;
        let ask = || Database::Postgres.accepts_queries("127.0.0.1", port);
        assert!(matches!(ask().await, Err(NotReady::Starting { .. })));
        assert!(matches!(ask().await, Err(NotReady::Foreign)));
        assert!(matches!(ask().await, Err(NotReady::Foreign)), "a listener that accepts and closes");
        ask().await.unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_and_more_of_them_change_nothing(start in prop::sample::select(vec![
            &b""[..], b"E", b"E\0\0\0\x10C", b"R", b"+", b"-", b"-LOADING"]), rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let bytes = [start, &rest].concat();
            for judge in [postgres_verdict, redis_verdict] {
                let first = (0..=bytes.len()).find_map(|n| judge(&bytes[..n]).map(|v| v.is_ok()));
                if let Some(first) = first {
                    prop_assert_eq!(judge(&bytes).map(|v| v.is_ok()), Some(first));
                }
            }
        }
    }
}
