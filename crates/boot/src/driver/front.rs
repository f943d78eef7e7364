//! The listeners, as the boot sees them: it tells when to open and when to close, and knows nothing of sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use pipeline::{BoxFuture, Core};
use pki::ServerCertificate;

use crate::machine::Halt;

/// Where requests come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    /// TCP addresses, with the ports that the kernel chose.
    pub tcp: Vec<SocketAddr>,
}

/// Who takes requests.
pub trait Front: Send + Sync {
    /// Lets `core` answer under this certificate. On return connections are accepted: no gate opens before.
    ///
    /// # Errors
    /// A [`Halt`]; the device is sealed again.
    fn open<'a>(
        &'a self,
        core: &'a Arc<Core>,
        certificate: &'a ServerCertificate,
    ) -> BoxFuture<'a, Result<Serving, Halt>>;

    /// Stops answering with the core, and returns when nothing that was begun is left. The keys go after it.
    fn close(&self) -> BoxFuture<'_, ()>;
}
