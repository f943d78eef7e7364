//! `listenTcp`: a port that is open until we are told to stop.

use std::num::NonZeroU16;

use boot::gate::OpenPort;

use super::signals::Signals;
use crate::failure::{Code, Failure};

/// Opens the port on the addresses of `host`, and keeps it.
///
/// # Errors
/// If it cannot be opened on all of them.
pub(super) async fn run(signals: &mut Signals, host: &str, port: NonZeroU16) -> Result<(), Failure> {
    let work = async {
        bind(host, port).await?.serve().await;
        Ok(())
    };
    signals.unless_told(work).await.unwrap_or(Ok(()))
}

pub(super) async fn bind(host: &str, port: NonZeroU16) -> Result<OpenPort, Failure> {
    let open = OpenPort::bind(host, port.get()).await.map_err(|e| {
        Failure::of(Code::Refused, &e)
            .hint("name a host of this machine; if the port is taken, whoever holds it lets services go too early")
    })?;
    let addresses: Vec<String> = open.addresses().iter().map(ToString::to_string).collect();
    crate::output::error(&format!("open: {}", addresses.join(", ")));
    if host.is_empty() {
        crate::output::error("note: no host was named, so that every network of this machine can reach the port");
    }
    Ok(open)
}
