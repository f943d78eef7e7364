//! The ways to reach a store that is not in this process.

use std::future::Future;
use std::net::IpAddr;

use api::{Reply, Request};

use crate::wire::{Dial, Reach, Wire, connector};
use crate::{Address, CallError, Deadlines, Trust, TrustError, Vault, Wired};

/// A store behind TLS.
pub struct HttpsVault(Wire);

impl HttpsVault {
    /// A client for the store at `host:port`. Nothing is connected before the first call.
    ///
    /// # Errors
    /// [`TrustError`] where `host` is no server name and the trust names none.
    pub fn new(host: &str, port: u16, trust: &Trust, deadlines: Deadlines) -> Result<Self, TrustError> {
        let dial = Dial::Tls {
            host: host.to_owned(),
            port,
            name: trust.name_for(host)?,
            connector: connector(trust.client_config()?),
        };
        Ok(Self(Wire::new(dial, Address::Https { host: host.to_owned(), port }, deadlines)))
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        self.0.address()
    }
}

/// A store at a Unix socket. The folder of the socket must be one that only the store's user can write: who owns the
/// folder can put another socket there.
pub struct UnixVault(Wire);

impl UnixVault {
    /// A client for the store at the socket. Nothing is connected before the first call.
    pub fn new(path: impl Into<std::path::PathBuf>, deadlines: Deadlines) -> Self {
        let path = path.into();
        Self(Wire::new(Dial::Unix { path: path.clone() }, Address::Unix { path }, deadlines))
    }
}

/// A store without TLS: on this machine, such as `bao server -dev`, or, where somebody asked for it, on a network of
/// containers. Any program that takes the port sees tokens and secrets, and so does everyone on the way.
pub struct DangerPlainVault(Wire);

/// Says that a store without TLS may be on a private network (RFC 1918, RFC 4193, RFC 3927), as in EdgeX's own compose
/// files. A name that leads anywhere else is refused when it is looked up, before anything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainNetworkAllowed(());

impl PlainNetworkAllowed {
    /// For the configuration alone: an operator asked for it by a name with `danger` in it.
    pub fn danger_plain_network() -> Self {
        Self(())
    }
}

impl DangerPlainVault {
    /// A client for `host:port`, which must be a loopback address or `localhost`.
    ///
    /// # Errors
    /// [`PlainRefused`] for every other host.
    pub fn new(host: &str, port: u16, deadlines: Deadlines) -> Result<Self, PlainRefused> {
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !loopback {
            return Err(PlainRefused { host: host.to_owned() });
        }
        let address = Address::Http { host: host.to_owned(), port };
        let dial = Dial::Plain { host: host.to_owned(), port, reach: Reach::Loopback };
        Ok(Self(Wire::new(dial, address, deadlines)))
    }

    /// A client for `host:port` on a private network.
    pub fn on_private_network(host: &str, port: u16, deadlines: Deadlines, _: PlainNetworkAllowed) -> Self {
        let address = Address::Http { host: host.to_owned(), port };
        Self(Wire::new(Dial::Plain { host: host.to_owned(), port, reach: Reach::PrivateNetwork }, address, deadlines))
    }
}

/// Plain HTTP to another machine would show tokens to everyone on the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plain http to {host:?}, which is not this machine, is refused")]
pub struct PlainRefused {
    /// The host.
    pub host: String,
}

/// Any of them, for those who take an address from a person.
pub enum Remote {
    /// Over TLS.
    Https(HttpsVault),
    /// Over a Unix socket.
    Unix(UnixVault),
    /// Over nothing.
    DangerPlain(DangerPlainVault),
}

impl Remote {
    /// Where it is.
    pub fn address(&self) -> &Address {
        match self {
            Self::Https(v) => v.0.address(),
            Self::Unix(v) => v.0.address(),
            Self::DangerPlain(v) => v.0.address(),
        }
    }
}

impl Vault for HttpsVault {
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, CallError>> + Send {
        self.0.call(request)
    }
}

impl Vault for UnixVault {
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, CallError>> + Send {
        self.0.call(request)
    }
}

impl Vault for DangerPlainVault {
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, CallError>> + Send {
        self.0.call(request)
    }
}

impl Wired for HttpsVault {
    fn hung_up(&self) -> impl Future<Output = ()> + Send {
        self.0.hung_up()
    }
}

impl Wired for UnixVault {
    fn hung_up(&self) -> impl Future<Output = ()> + Send {
        self.0.hung_up()
    }
}

impl Wired for DangerPlainVault {
    fn hung_up(&self) -> impl Future<Output = ()> + Send {
        self.0.hung_up()
    }
}

impl Wired for Remote {
    async fn hung_up(&self) {
        match self {
            Self::Https(v) => v.hung_up().await,
            Self::Unix(v) => v.hung_up().await,
            Self::DangerPlain(v) => v.hung_up().await,
        }
    }
}

impl Vault for Remote {
    async fn call(&self, request: Request) -> Result<Reply, CallError> {
        match self {
            Self::Https(v) => v.call(request).await,
            Self::Unix(v) => v.call(request).await,
            Self::DangerPlain(v) => v.call(request).await,
        }
    }
}
