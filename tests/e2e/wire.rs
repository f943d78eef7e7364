//! A wire to a server, on which answers can be held back.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Until it is dropped with the process of the tests, whoever connects to it is led to the server.
pub(crate) struct Wire {
    address: SocketAddr,
    free: Arc<Free>,
}

#[derive(Default)]
struct Free {
    yes: Mutex<bool>,
    now: Condvar,
}

impl Wire {
    /// At another port of the server's address. What the server answers while `is_held` stays on the wire, from before
    /// the first octet that anybody could read, until [`Wire::lets_go`].
    pub(crate) fn to(server: SocketAddr, is_held: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((server.ip(), 0)).unwrap();
        let wire = Self { address: listener.local_addr().unwrap(), free: Arc::default() };
        let (free, is_held) = (Arc::clone(&wire.free), Arc::new(is_held));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(behind) = TcpStream::connect(server) else { continue };
                let (asks, hears) = (client.try_clone().unwrap(), behind.try_clone().unwrap());
                std::thread::spawn(move || carry(asks, behind, || {}));
                let (free, is_held) = (Arc::clone(&free), Arc::clone(&is_held));
                std::thread::spawn(move || carry(hears, client, || free.wait_while(&*is_held)));
            }
        });
        wire
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What it holds goes on, and nothing is held from now on.
    pub(crate) fn lets_go(&self) {
        *self.free.yes.lock().unwrap() = true;
        self.free.now.notify_all();
    }
}

impl Free {
    fn wait_while(&self, is_held: impl Fn() -> bool) {
        if is_held() {
            drop(self.now.wait_while(self.yes.lock().unwrap(), |yes| !*yes).unwrap());
        }
    }
}

/// Octet by octet, to the end; `before` each piece.
fn carry(mut from: TcpStream, mut to: TcpStream, before: impl Fn()) {
    let mut piece = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut piece) {
        before();
        if to.write_all(&piece[..n]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}
