//! One HTTP/1.1 connection to a store, made when it is needed and used again while it lives.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{Reply, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::encode::{Outgoing, encode};
use crate::index::Index;
use crate::reply::{self, MAX_REPLY_BYTES};
use crate::{Address, CallError};

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For the connection, TLS included.
    pub connect: Duration,
    /// For the whole call.
    pub total: Duration,
}

impl Default for Deadlines {
    /// 5 s and 30 s: a store on the same device answers within milliseconds, one behind a mobile network within
    /// seconds.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(30) }
    }
}

/// How a connection is made.
pub(crate) enum Dial {
    Tls {
        host: String,
        port: u16,
        name: ServerName<'static>,
        connector: TlsConnector,
    },
    /// Refused unless the peer turns out to be within reach.
    Plain {
        host: String,
        port: u16,
        reach: Reach,
    },
    Unix {
        path: PathBuf,
    },
}

/// How far bytes may go without TLS.
#[derive(Clone, Copy)]
pub(crate) enum Reach {
    Loopback,
    PrivateNetwork,
}

impl Reach {
    fn holds(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let private = match ip {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        ip.is_loopback() || (private && matches!(self, Self::PrivateNetwork))
    }

    fn refusal(self) -> &'static str {
        match self {
            Self::Loopback => "it is another machine, and nothing protects the wire",
            Self::PrivateNetwork => "it is not on a private network, and nothing protects the wire",
        }
    }
}

pub(crate) struct Wire {
    dial: Dial,
    address: Address,
    host_header: String,
    deadlines: Deadlines,
    /// The connection that the last call left behind. It is taken out for a call and put back after it, so that the
    /// lock is never held across a wait; calls at the same time make connections of their own.
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
    /// Told when a connection has ended.
    ended: Arc<Notify>,
    index: Index,
}

impl Wire {
    pub(crate) fn new(dial: Dial, address: Address, deadlines: Deadlines) -> Self {
        let host_header = match &address {
            Address::Https { .. } | Address::Http { .. } => {
                let text = address.to_string();
                text.split_once("://").map_or_else(String::new, |(_, authority)| authority.to_owned())
            }
            Address::Unix { .. } => "localhost".to_owned(),
        };
        let (idle, ended, index) = (Mutex::new(None), Arc::new(Notify::new()), Index::default());
        Self { dial, address, host_header, deadlines, idle, ended, index }
    }

    /// Resolves when a connection has ended since the last time: at once when the peer dies, for then the kernel closes
    /// it.
    pub(crate) async fn hung_up(&self) {
        self.ended.notified().await;
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Makes a call within the deadline. A connection that broke in the middle of a call is not tried again: the call
    /// may have taken effect.
    pub(crate) async fn call(&self, request: Request) -> Result<Reply, CallError> {
        let total = self.deadlines.total;
        match timeout(total, self.exchange(&request)).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out(total)),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Reply, CallError> {
        let mut outgoing = encode(request, &self.host_header).map_err(|reason| self.malformed(reason))?;
        self.index.demand(&request.path, outgoing.headers_mut());
        if let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(outgoing).await {
                Ok(response) => return self.finish(sender, response).await,
                // Closed by the peer while it was idle. What hyper hands back was never sent, so it is safe to send
                // now.
                Err(mut unsent) => match unsent.take_message() {
                    Some(message) => outgoing = message,
                    None => return Err(self.broken(unsent.error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = self.send(&mut sender, outgoing).await?;
        self.finish(sender, response).await
    }

    async fn send(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        outgoing: Outgoing,
    ) -> Result<http::Response<Incoming>, CallError> {
        sender.send_request(outgoing).await.map_err(|e| self.broken(&e))
    }

    /// Reads the reply to its end, within the bound, and keeps the connection.
    async fn finish(
        &self,
        sender: SendRequest<Full<Bytes>>,
        response: http::Response<Incoming>,
    ) -> Result<Reply, CallError> {
        let status = response.status().as_u16();
        self.index.note(response.headers());
        let mut body = response.into_body();
        let (mut chunks, mut length) = (Vec::new(), 0_usize);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.broken(&e))?;
            let Ok(chunk) = frame.into_data() else { continue };
            length = length.saturating_add(chunk.len());
            if length > MAX_REPLY_BYTES {
                return Err(self.malformed("it is larger than 4 MiB"));
            }
            chunks.push(chunk);
        }
        // Made at its full size at once: growing would leave copies of a secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
        let reply = reply::parse(status, bytes).map_err(|reason| self.malformed(reason))?;
        self.keep(sender);
        Ok(reply)
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|s| !s.is_closed())
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        if !sender.is_closed() {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let limit = self.deadlines.connect;
        match timeout(limit, self.dial()).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out(limit)),
        }
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let unreachable = |cause| CallError::Unreachable { address: self.address.to_string(), cause };
        match &self.dial {
            Dial::Tls { host, port, name, connector } => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                tcp.set_nodelay(true).map_err(unreachable)?;
                let tls = connector.connect(name.clone(), tcp).await.map_err(|e| self.tls_failed(e))?;
                self.handshake(tls).await
            }
            Dial::Plain { host, port, reach } => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                // The name was looked up just now, and nothing has been sent yet.
                if !reach.holds(tcp.peer_addr().map_err(unreachable)?.ip()) {
                    let reason = reach.refusal().to_owned();
                    return Err(CallError::Untrusted { address: self.address.to_string(), reason });
                }
                tcp.set_nodelay(true).map_err(unreachable)?;
                self.handshake(tcp).await
            }
            Dial::Unix { path } => {
                let socket = UnixStream::connect(path).await.map_err(unreachable)?;
                self.handshake(socket).await
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, CallError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        // Ends when the sender is dropped or the peer closes; its faults come out of the sender.
        let ended = Arc::clone(&self.ended);
        tokio::spawn(async move {
            connection.await.ok();
            ended.notify_one();
        });
        Ok(sender)
    }

    fn timed_out(&self, limit: Duration) -> CallError {
        CallError::TimedOut { address: self.address.to_string(), seconds: limit.as_secs() }
    }

    fn malformed(&self, reason: &str) -> CallError {
        CallError::Malformed { address: self.address.to_string(), reason: reason.to_owned() }
    }

    /// A fault of the connection: of TLS, of the network, or of what the peer says.
    fn broken(&self, error: &hyper::Error) -> CallError {
        let mut source = std::error::Error::source(error);
        while let Some(e) = source {
            let io = e.downcast_ref::<io::Error>();
            if let Some(tls) = io.and_then(io::Error::get_ref).and_then(|e| e.downcast_ref()) {
                return self.tls_refused(tls);
            }
            source = e.source();
        }
        if error.is_parse() {
            return self.malformed("it is not HTTP/1.1");
        }
        let cause = io::Error::new(io::ErrorKind::ConnectionAborted, error.to_string());
        CallError::Unreachable { address: self.address.to_string(), cause }
    }

    /// Tells a peer that failed the check of its certificate from one that is not there.
    fn tls_failed(&self, error: io::Error) -> CallError {
        match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some(tls) => self.tls_refused(tls),
            None => CallError::Unreachable { address: self.address.to_string(), cause: error },
        }
    }

    fn tls_refused(&self, error: &rustls::Error) -> CallError {
        match error {
            rustls::Error::InvalidMessage(_) => self.malformed("it does not speak TLS"),
            e => CallError::Untrusted { address: self.address.to_string(), reason: e.to_string() },
        }
    }
}

/// A connector of this configuration.
pub(crate) fn connector(config: rustls::ClientConfig) -> TlsConnector {
    TlsConnector::from(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::Reach;

    #[test]
    fn plain_bytes_stay_within_reach() {
        let holds = |reach: Reach, ip: &str| reach.holds(ip.parse().unwrap());
        for (ip, loopback, private) in [
            ("127.0.0.1", true, true),
            ("::1", true, true),
            ("::ffff:127.0.0.1", true, true),
            ("172.18.0.5", false, true),
            ("192.168.1.1", false, true),
            ("169.254.3.4", false, true),
            ("fd00::5", false, true),
            ("::ffff:10.0.0.1", false, true),
            ("172.32.0.1", false, false),
            ("8.8.8.8", false, false),
            ("2001:db8::1", false, false),
            ("::ffff:8.8.8.8", false, false),
        ] {
            assert_eq!((holds(Reach::Loopback, ip), holds(Reach::PrivateNetwork, ip)), (loopback, private), "{ip}");
        }
    }
}
