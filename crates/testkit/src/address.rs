//! Addresses and ports that no other test has, of this process or of another that runs beside it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// An address of 127.0.0.0/8, by the number of this process and a counter. Every port of it is free.
pub fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (n, pid) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
    let octet = |n: u32| u8::try_from(1 + n % 250).expect("less than 256");
    Ipv4Addr::new(127, octet(pid / 250), octet(pid), octet(n))
}

/// A port for a program that listens on every address, or that is to be told where it listens before it does.
///
/// The kernel gives none of these to a connection or to a listener that leaves the choice to it
/// (`ip_local_port_range`), so that nobody takes it in the meantime; other processes begin elsewhere.
///
/// # Panics
/// If none is free.
pub fn port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let free = |port: &u16| is_free(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, *port));
    let begin = std::process::id().wrapping_mul(BLOCK);
    let mut tried = (0..COUNT).map(|_| begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let of = |n: u32| u16::try_from(FIRST + n).expect("below 32768");
    tried.by_ref().map(of).find(free).expect("a port below 32768 is free")
}

/// Asked without listening: a child that another thread starts just then has a copy of the socket until its exec, and
/// a copy that listens would keep the port taken, and answer on it.
fn is_free(address: SocketAddrV4) -> bool {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .and_then(|socket| sockopt::set_socket_reuseaddr(&socket, true).map(|()| socket))
        .expect("there are sockets");
    bind(&socket, &address).is_ok()
}

/// Above what services of a machine are given by custom, below where the kernel begins.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;
/// More than the tests of one process ask for.
const BLOCK: u32 = 40;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn none_is_given_twice() {
        let (one, other) = (loopback(), loopback());
        assert!(one != other && one.is_loopback() && other.is_loopback());
        let held = TcpListener::bind((one, 8200)).unwrap();
        TcpListener::bind((other, 8200)).expect("each has its own 8200");
        assert_eq!(held.local_addr().unwrap().ip(), one);
    }

    #[test]
    fn a_port_is_free_and_the_kernel_gives_it_to_nobody() {
        let (one, other) = (port(), port());
        assert!(one != other && (20_000..32_000).contains(&one), "{one} {other}");
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, one)).is_err());
        let held = TcpListener::bind((Ipv4Addr::UNSPECIFIED, one)).unwrap();
        assert!(!is_free(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, one)));
        drop(held);
    }
}
