//! A TCP port that is open and says nothing: EdgeX's `listenTcp`, a gate for those who know no other.
//!
//! It proves nothing (anybody may hold a port), so it is opened only where it was asked for: on the addresses of the
//! host that was named, and on no other.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, lookup_host};
use tokio::task::JoinSet;

/// A port on all addresses of a host. Closed when it is dropped.
#[derive(Debug)]
pub struct OpenPort {
    listeners: Vec<TcpListener>,
}

impl OpenPort {
    /// Binds every address of `host`. An empty host is every address of this machine.
    ///
    /// # Errors
    /// [`PortError`] if the name has no address, or if any of them cannot be bound: a port that is open on half of them
    /// would be a gate for half of those who wait.
    pub async fn bind(host: &str, port: u16) -> Result<Self, PortError> {
        let failed = |cause| PortError { host: host.to_owned(), port, cause };
        if host.is_empty() || !host::in_force("gate-port-binds-its-host") {
            // With IPv6 one socket has both (RFC 3493, 5.3); a kernel without it has no such address.
            let both = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
                Ok(listener) => listener,
                Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(failed)?,
            };
            return Ok(Self { listeners: vec![both] });
        }
        let addresses: BTreeSet<SocketAddr> = lookup_host((host, port)).await.map_err(failed)?.collect();
        let mut listeners = Vec::new();
        for address in addresses {
            listeners.push(TcpListener::bind(address).await.map_err(failed)?);
        }
        if listeners.is_empty() {
            return Err(failed(io::ErrorKind::AddrNotAvailable.into()));
        }
        Ok(Self { listeners })
    }

    /// The addresses that are bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Takes connections and closes them without a byte, for ever.
    pub async fn serve(self) {
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            tasks.spawn(accept_and_close(listener));
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Takes connections and closes them: whoever waits learns that the port is open, and no more.
pub(super) async fn accept_and_close(listener: TcpListener) {
    loop {
        if listener.accept().await.is_err() {
            // Out of descriptors: the backlog accepts for us, which is all that a hint needs.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The port is not open.
#[derive(Debug, thiserror::Error)]
#[error("port {port} cannot be opened on {}", if host.is_empty() { "this machine" } else { host.as_str() })]
pub struct PortError {
    /// The host, as it was named.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What the system said.
    #[source]
    pub cause: io::Error,
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::*;
    use crate::testing::is_refused;

    #[tokio::test]
    async fn a_gates_port_is_open_on_its_host_alone() {
        let open = OpenPort::bind("127.77.1.1", 0).await.unwrap();
        let addresses = open.addresses();
        assert_eq!(addresses.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>(), ["127.77.1.1"]);
        let port = addresses[0].port();
        let serving = tokio::spawn(open.serve());
        let mut client = TcpStream::connect(("127.77.1.1", port)).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "no byte, and a close");
        assert!(TcpStream::connect(("127.77.1.2", port)).await.is_err(), "another address of this machine");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        // Closed when it is dropped.
        is_refused(SocketAddr::from(([127, 77, 1, 1], port))).await;
    }

    #[tokio::test]
    async fn no_host_is_every_address() {
        let open = OpenPort::bind("", 0).await.unwrap();
        assert!(open.addresses()[0].ip().is_unspecified());
    }

    #[tokio::test]
    async fn a_taken_port_and_a_foreign_address_are_errors() {
        let open = OpenPort::bind("127.0.0.1", 0).await.unwrap();
        let taken = OpenPort::bind("127.0.0.1", open.addresses()[0].port()).await.unwrap_err();
        assert!(taken.to_string().ends_with("cannot be opened on 127.0.0.1"), "{taken}");
        let foreign = OpenPort::bind("192.0.2.1", 0).await.unwrap_err(); // RFC 5737: nobody's
        assert_eq!(foreign.cause.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
