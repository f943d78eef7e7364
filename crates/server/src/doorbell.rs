//! A door at which few ring, for one thing: one request a connection, without a body, answered one after another.
//!
//! ```text
//! connection -> head read, under a deadline, side by side -> Ring -> answered in turn -> closed
//! ```
//! Who rings at a socket is the kernel's word; at a port behind mutual TLS it is that of an authority. Connections
//! beyond [`MAX_CONNECTIONS`] wait in the kernel's queue.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::Disk;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use secret::Token;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::head;
use crate::mutual::{Certified, Mutual};
use crate::sockets::{self, Reach, SocketError, UnixPeer};

/// The door.
#[derive(Debug)]
pub struct Doorbell(Listener);

#[derive(Debug)]
enum Listener {
    Socket(UnixListener),
    Mutual(TcpListener, Mutual),
    Tcp(TcpListener),
}

/// Who is at the other end.
#[derive(Debug)]
pub enum Caller {
    /// Of a socket: this user.
    User(u32),
    /// Of mutual TLS: whoever has the key of this certificate.
    Certified(Certified),
    /// Of plain TCP: nobody knows.
    Nobody,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Certified(certified) => write!(f, "{certified:?}"),
            Self::Nobody => f.write_str("nobody known"),
        }
    }
}

/// What was asked, and by whom.
#[derive(Debug)]
pub struct Ring {
    /// Who asked.
    pub caller: Caller,
    /// The method.
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// The token that was shown.
    pub token: Option<Token>,
}

/// What is answered: a status, and JSON.
#[derive(Debug)]
pub struct RingReply {
    /// The HTTP status.
    pub status: u16,
    /// A JSON document.
    pub json: String,
}

impl Doorbell {
    /// At a Unix socket that every local user may connect to.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn at_socket(disk: &dyn Disk, path: &Path) -> Result<Self, SocketError> {
        sockets::bind(disk, path, Reach::Everyone).map(|socket| Self(Listener::Socket(socket)))
    }

    /// At an address, where a caller shows a certificate.
    ///
    /// # Errors
    /// What the system says.
    pub async fn at_address(host: &str, port: u16, mutual: Mutual) -> std::io::Result<Self> {
        Ok(Self(Listener::Mutual(TcpListener::bind((host, port)).await?, mutual)))
    }

    /// At an address, where nobody can be told from anybody.
    ///
    /// # Errors
    /// What the system says.
    pub async fn danger_at_address(host: &str, port: u16) -> std::io::Result<Self> {
        Ok(Self(Listener::Tcp(TcpListener::bind((host, port)).await?)))
    }

    /// Answers in turn until `until` resolves. An answer that was begun is finished first.
    pub async fn serve(&self, answer: impl AsyncFn(Ring) -> RingReply, until: impl Future<Output = ()>) {
        let (rings, mut waiting) = mpsc::channel::<(Ring, oneshot::Sender<RingReply>)>(MAX_CONNECTIONS);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accept = async {
            loop {
                // It is never closed.
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                let rings = rings.clone();
                match &self.0 {
                    Listener::Socket(socket) => {
                        let Ok((stream, _)) = socket.accept().await else { continue };
                        let Ok(peer) = UnixPeer::of(&stream) else { continue };
                        tokio::spawn(async move {
                            connection(stream, Caller::User(peer.uid), rings).await;
                            drop(permit);
                        });
                    }
                    Listener::Mutual(tcp, mutual) => {
                        let Ok((stream, _)) = tcp.accept().await else { continue };
                        let handshake = mutual.acceptor().accept(stream);
                        tokio::spawn(async move {
                            match tokio::time::timeout(HANDSHAKE, handshake).await {
                                Ok(Ok(stream)) => {
                                    if let Some(certified) = Certified::of(stream.get_ref().1) {
                                        connection(stream, Caller::Certified(certified), rings).await;
                                    }
                                }
                                Ok(Err(e)) => tracing::warn!(error = %e, "a caller was not let in"),
                                Err(_) => tracing::debug!("a caller was too slow"),
                            }
                            drop(permit);
                        });
                    }
                    Listener::Tcp(tcp) => {
                        let Ok((stream, _)) = tcp.accept().await else { continue };
                        tokio::spawn(async move {
                            connection(stream, Caller::Nobody, rings).await;
                            drop(permit);
                        });
                    }
                }
            }
        };
        let mut accept = std::pin::pin!(accept);
        let mut until = std::pin::pin!(until);
        loop {
            let (ring, reply) = tokio::select! {
                () = &mut accept => return,
                () = &mut until => return,
                Some(next) = waiting.recv() => next,
            };
            // Whoever has hung up meanwhile does not need it; what was done is done.
            reply.send(answer(ring).await).ok();
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    caller: Caller,
    rings: mpsc::Sender<(Ring, oneshot::Sender<RingReply>)>,
) {
    // One request a connection: whoever it is, he asks once.
    let caller = Mutex::new(Some(caller));
    let service = service_fn(|request: http::Request<Incoming>| {
        let rings = rings.clone();
        let caller = caller.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { Ok::<_, Infallible>(http(ring(request, caller, &rings).await)) }
    });
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).max_buf_size(8192).max_headers(32).auto_date_header(false);
    // All of it, the wait for one's turn included.
    let served = tokio::time::timeout(LIMIT, builder.serve_connection(TokioIo::new(stream), service));
    if !matches!(served.await, Ok(Ok(()))) {
        tracing::debug!("a caller left, or was too slow");
    }
}

async fn ring(
    request: http::Request<Incoming>,
    caller: Option<Caller>,
    rings: &mpsc::Sender<(Ring, oneshot::Sender<RingReply>)>,
) -> RingReply {
    let busy = || RingReply { status: 503, json: "{}".into() };
    let (Ok(token), Some(caller)) = (head::token(request.headers()), caller) else {
        return RingReply { status: 400, json: "{}".into() };
    };
    let ring =
        Ring { caller, method: request.method().as_str().to_owned(), path: request.uri().path().to_owned(), token };
    let (sender, receiver) = oneshot::channel();
    if rings.try_send((ring, sender)).is_err() {
        return busy();
    }
    receiver.await.unwrap_or_else(|_| busy())
}

fn http(reply: RingReply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.json)));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

/// Services of one device that all start at once.
pub const MAX_CONNECTIONS: usize = 64;
/// A caller may wait for the turns of others; EdgeX's services give up sooner.
const LIMIT: Duration = Duration::from_secs(60);
const HANDSHAKE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsDisk;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    async fn ask(path: &Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn whoever_rings_is_told_apart_and_a_slow_one_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door/bell.sock");
        let door = Doorbell::at_socket(&OsDisk, &path).unwrap();
        let us = rustix::process::geteuid().as_raw();
        let (halt, halted) = oneshot::channel::<()>();
        let answer = async |ring: Ring| {
            assert!(matches!(ring.caller, Caller::User(uid) if uid == us), "{:?}", ring.caller);
            let token = ring.token.map_or("none", |t| if t.expose() == "s.x" { "s.x" } else { "other" });
            RingReply { status: 200, json: format!("\"{} {} {token}\"", ring.method, ring.path) }
        };
        let serving = door.serve(answer, async { halted.await.unwrap_or(()) });
        let asking = async {
            let mut slow = UnixStream::connect(&path).await.unwrap();
            slow.write_all(b"PUT /").await.unwrap();
            let told = ask(&path, "PUT /a/b HTTP/1.1\r\nHost: x\r\nX-Vault-Token: s.x\r\n\r\n").await;
            assert!(told.starts_with("HTTP/1.1 200 OK") && told.ends_with("\"PUT /a/b s.x\""), "{told}");
            let told = ask(&path, "GET /c HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(told.ends_with("\"GET /c none\""), "{told}");
            let told = ask(&path, "GET /c HTTP/1.1\r\nHost: x\r\nX-Vault-Token: a b\r\n\r\n").await;
            assert!(told.starts_with("HTTP/1.1 400"), "{told}");
            halt.send(()).unwrap();
        };
        tokio::join!(serving, asking);
    }
}
