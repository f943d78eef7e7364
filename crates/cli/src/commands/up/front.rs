//! The server in the hands of the boot: it opens before the first gate may, and closes before the keys go.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boot::driver::{Front, Serving};
use boot::machine::Halt;
use boot::plan::Plan;
use host::{Disk, OsDisk};
use pipeline::{BoxFuture, Core};
use pki::ServerCertificate;
use server::{
    Addresses, Identity, Limits, Listen, ListenError, Machine, Sealed, Security, Server, Tcp, TlsVersions, Unsealed,
};
use tokio::sync::Mutex as AsyncMutex;

use super::admin::Port;
use crate::failure::{Code, Failure};

/// The running server.
pub(super) struct ServerFront {
    server: AsyncMutex<Option<Server<Unsealed>>>,
    addresses: Mutex<Addresses>,
}

impl ServerFront {
    /// Opens the admin socket, and TCP if the operator gave a certificate. Must be called within the runtime.
    pub(super) fn start(plan: &Plan, port: Arc<Port>, machine: Machine) -> Result<Arc<Self>, Failure> {
        let server =
            Server::start(listen(plan)?, Limits::default(), sealed(), port, machine).map_err(|e| refused(&e))?;
        let addresses = Mutex::new(server.addresses());
        Ok(Arc::new(Self { server: AsyncMutex::new(Some(server)), addresses }))
    }

    /// Where it listens, once it does.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).tcp.first().copied()
    }

    /// Shows the operator's certificate as it is on the disk now.
    pub(super) async fn reload(&self, plan: &Plan) -> Result<(), Failure> {
        if let (Some(identity), Some(server)) = (operator(plan)?, self.server.lock().await.as_ref()) {
            server.replace_identity(identity);
        }
        Ok(())
    }

    /// Ends all connections.
    pub(super) async fn drain(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.drain(DRAIN).await;
        }
    }
}

impl Front for ServerFront {
    fn open<'a>(&'a self, core: &'a Arc<Core>, device: &'a ServerCertificate) -> BoxFuture<'a, Result<Serving, Halt>> {
        Box::pin(async move {
            let identity =
                Identity::of_device(device).map_err(|e| halt(&host::with_causes(&e), "please report this"))?;
            let mut server = self.server.lock().await;
            let server = server.as_mut().ok_or_else(|| halt("the server has ended", "start again"))?;
            let addresses = server.unseal(Unsealed::new(Arc::clone(core)), &identity).map_err(|e| {
                let failure = refused(&e);
                halt(&failure.fact, failure.hint.as_deref().unwrap_or("see [listen] in edgekeep.toml"))
            })?;
            *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.clone();
            Ok(Serving { tcp: addresses.tcp })
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(server) = self.server.lock().await.as_mut() {
                server.seal(sealed(), DRAIN).await;
            }
        })
    }
}

/// Whether the plan's addresses can be listened at, before anything is made: a port that is taken must not leave half a
/// device behind.
pub(super) fn check_address(plan: &Plan) -> Result<(), Failure> {
    for address in addresses(plan)? {
        std::net::TcpListener::bind(address).map_err(|cause| refused(&ListenError::Tcp { address, cause }))?;
    }
    Ok(())
}

/// What [`check_address`] and [`ServerFront::start`] would refuse, whoever else listens: an edgekeep that runs has the
/// port.
pub(super) fn preflight(plan: &Plan) -> Result<(), Failure> {
    for address in addresses(plan)? {
        std::net::TcpListener::bind((address.ip(), 0))
            .map_err(|cause| refused(&ListenError::Tcp { address, cause }))?;
    }
    let places = listen(plan)?.check_sockets(&OsDisk, &plan.run_dir);
    places.map_err(|e| refused(&ListenError::Socket(e)))
}

fn listen(plan: &Plan) -> Result<Listen, Failure> {
    Ok(Listen {
        tcp: tcp(plan)?,
        // Secrets are asked for where the store is.
        api_socket: plan.store.external().is_none().then(|| plan.listen.api_socket.clone()),
        admin_socket: plan.listen.admin_socket.clone(),
    })
}

fn addresses(plan: &Plan) -> Result<Vec<SocketAddr>, Failure> {
    let Some(text) = &plan.listen.tcp else { return Ok(Vec::new()) };
    let found = text.to_socket_addrs().map_err(|e| {
        Failure::usage(format!("{text} is no address of this machine: {e}"))
            .hint("write an IP address in [listen] address; names may not resolve this early in a boot")
    })?;
    Ok(found.collect())
}

fn tcp(plan: &Plan) -> Result<Option<Tcp>, Failure> {
    let addresses = addresses(plan)?;
    if addresses.is_empty() {
        return Ok(None);
    }
    let versions = TlsVersions::Tls13;
    let security = match operator(plan)? {
        _ if plan.dangers.plain_http => Security::DangerPlainHttp,
        Some(identity) => Security::Operator { identity, versions },
        None => Security::Device { versions },
    };
    Tcp::new(addresses, security).map(Some).map_err(|e| Failure::of(Code::Usage, &e))
}

fn operator(plan: &Plan) -> Result<Option<Identity>, Failure> {
    let Some(files) = &plan.listen.operator_tls else { return Ok(None) };
    let read = |path: &std::path::Path| {
        OsDisk.read(path, MAX_PEM_BYTES).map_err(|e| {
            Failure::usage(format!("cannot read {}: {e}", path.display()))
                .hint("see [listen] tls_certificate and tls_key")
        })
    };
    let identity = Identity::from_pem(&read(&files.certificate)?, &read(&files.key)?);
    identity.map(Some).map_err(|e| {
        Failure::of(Code::Usage, &e).hint(format!("see {} and {}", files.certificate.display(), files.key.display()))
    })
}

fn refused(error: &ListenError) -> Failure {
    let failure = Failure::of(Code::NotReady, error);
    failure.hint(match error {
        ListenError::Tcp { cause, .. } if cause.kind() == std::io::ErrorKind::AddrInUse => {
            "see with `ss -ltnp` who listens there; or set another [listen] address (a demo: --listen 127.0.0.1:8201)"
        }
        _ => error.hint().unwrap_or("see [listen] in edgekeep.toml"),
    })
}

fn halt(fact: &str, hint: &str) -> Halt {
    Halt::Refused { fact: fact.into(), hint: hint.into() }
}

fn sealed() -> Sealed {
    Sealed { initialized: true, seal_type: "slots", recovery_seal: true, version: env!("CARGO_PKG_VERSION") }
}

const DRAIN: Duration = Duration::from_secs(5);
const MAX_PEM_BYTES: usize = 256 * 1024;
