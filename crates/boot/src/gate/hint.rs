//! TCP ports that are open while a gate is: EdgeX's `listenTcp`. A hint, for it proves nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::gate::Board;
use crate::gate::port::accept_and_close;
use crate::plan::{GateName, Plan};

/// The listeners of the open gates.
#[derive(Debug, Default)]
pub struct Hints {
    wanted: BTreeMap<GateName, SocketAddr>,
    open: BTreeMap<GateName, JoinHandle<()>>,
}

/// A port that could not be opened: whoever listens there lets EdgeX's services go too early.
#[derive(Debug, thiserror::Error)]
#[error("the hint port {address} of the gate {gate} cannot be opened")]
pub struct HintAlarm {
    /// The gate.
    pub gate: GateName,
    /// Its address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub cause: io::Error,
}

impl Hints {
    /// The hints of a plan, none of them open.
    pub fn new(plan: &Plan) -> Self {
        let wanted = plan.gates.iter().filter_map(|g| Some((g.name.clone(), g.hint?))).collect();
        Self { wanted, open: BTreeMap::new() }
    }

    /// Opens and closes ports as the board says. A port that was taken is tried again at the next call.
    pub async fn follow(&mut self, board: &Board) -> Vec<HintAlarm> {
        let gates = board.open();
        // Closed first: a port that stays open ahead of its gate is the worse fault.
        self.open.retain(|gate, task| {
            let keep = gates.contains(gate);
            if !keep {
                task.abort();
            }
            keep
        });
        let mut alarms = Vec::new();
        for (gate, address) in &self.wanted {
            if !gates.contains(gate) || self.open.contains_key(gate) {
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    self.open.insert(gate.clone(), tokio::spawn(accept_and_close(listener)));
                }
                Err(cause) => alarms.push(HintAlarm { gate: gate.clone(), address: *address, cause }),
            }
        }
        alarms
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.open.values().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use host::BootId;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::*;
    use crate::gate::Evidence;
    use crate::testing::{demo_plan, is_refused};

    #[tokio::test]
    async fn a_port_is_open_with_its_gate_alone_and_a_taken_one_is_an_alarm() {
        let mut plan = demo_plan("/d".as_ref(), "/r".as_ref());
        // An address of its own: the port is given back, and taken again, and nobody may come in between.
        let holder = TcpListener::bind((testkit::loopback(), 0)).await.unwrap();
        let address = holder.local_addr().unwrap();
        plan.gates[0].hint = Some(address);
        let mut board = Board::shut(&plan, BootId([0; 16]));
        let mut hints = Hints::new(&plan);
        assert!(hints.follow(&board).await.is_empty());

        board.set(&[plan.gates[0].name.clone()].into(), Evidence { ca: [0; 32], receipts: [0; 32] });
        let alarms = hints.follow(&board).await;
        assert_eq!(alarms.len(), 1, "the port is taken");
        assert!(alarms[0].to_string().contains(&address.to_string()));

        // A child that another test starts just then has a copy of it until its exec, which would go on listening.
        rustix::net::shutdown(&holder, rustix::net::Shutdown::Both).unwrap();
        drop(holder);
        assert!(hints.follow(&board).await.is_empty(), "tried again");
        let mut byte = [0];
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read(&mut byte).await.unwrap(), 0, "no byte, and a close, as EdgeX's listener");

        board.shut_all();
        hints.follow(&board).await;
        tokio::task::yield_now().await;
        is_refused(address).await;
    }
}
