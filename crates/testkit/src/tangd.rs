//! The real Tang server of Debian (`tang`), with a directory and a port of its own for each test.
//!
//! `tangd` answers one request on its standard input and output, as inetd's servers do; here a thread listens and
//! starts it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A server; gone when it is dropped.
pub struct Tangd {
    keys: tempfile::TempDir,
    address: SocketAddr,
    state: Arc<State>,
}

/// How it behaves at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tanging {
    /// As tangd does.
    #[default]
    Well,
    /// Connections are closed before a word.
    Down,
    /// Connections are taken, and nothing is ever said.
    Hanging,
    /// As tangd does, so much later.
    Late(Duration),
    /// An answer is begun, and goes on by an octet every 20 ms for as long as anybody listens.
    Dripping,
    /// These bytes are sent whatever was asked.
    Saying(Vec<u8>),
}

#[derive(Default)]
struct State {
    mood: Mutex<Tanging>,
    asked: AtomicUsize,
    over: AtomicBool,
}

impl Tangd {
    /// Starts a server with new keys.
    ///
    /// # Panics
    /// When Debian's `tang` is not installed.
    pub fn start() -> Self {
        let keys = crate::scratch_dir();
        run(Command::new("/usr/libexec/tangd-keygen").arg(keys.path()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State::default());
        let (theirs, dir) = (Arc::clone(&state), keys.path().to_owned());
        std::thread::spawn(move || serve(&listener, &dir, &theirs));
        Self { keys, address, state }
    }

    /// Its address, as a configuration names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The thumbprint of its signing key, as another implementation (`jose`) computes it.
    pub fn thumbprint(&self) -> String {
        let signing = self.key_files().into_iter().find(|path| {
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            !hidden && fs::read_to_string(path).is_ok_and(|text| text.contains("ES512"))
        });
        let signing = signing.expect("there is a signing key");
        run(Command::new("jose").args(["jwk", "thp", "-a", "S256", "-i"]).arg(signing)).trim().to_owned()
    }

    /// Makes it behave otherwise, from the next connection on.
    pub fn becomes(&self, mood: Tanging) {
        *self.state.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// How many connections came so far.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// New keys; the old ones are hidden, and still answer.
    pub fn rotate(&self) {
        run(Command::new("/usr/libexec/tangd-rotate-keys").arg("-d").arg(self.keys.path()));
    }

    /// Deletes the hidden keys: whoever still hangs on them is shut out.
    pub fn revoke_rotated(&self) {
        for path in self.key_files() {
            if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')) {
                fs::remove_file(path).expect("a key can be deleted");
            }
        }
    }

    fn key_files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.keys.path()).expect("the directory is there").flatten().map(|e| e.path()).collect()
    }
}

impl Drop for Tangd {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        // Wakes the thread that listens.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(listener: &TcpListener, dir: &Path, state: &State) {
    let mut held = Vec::new();
    for stream in listener.incoming().flatten() {
        if state.over.load(Ordering::SeqCst) {
            return;
        }
        state.asked.fetch_add(1, Ordering::SeqCst);
        let mood = state.mood.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match mood {
            Tanging::Well => answer(stream, dir),
            Tanging::Late(by) => {
                let dir = dir.to_owned();
                std::thread::spawn(move || {
                    pause(by);
                    answer(stream, &dir);
                });
            }
            Tanging::Dripping => drop(std::thread::spawn(move || drip(stream))),
            Tanging::Down => drop(stream),
            Tanging::Hanging => held.push(stream),
            Tanging::Saying(bytes) => say(stream, &bytes),
        }
    }
}

/// tangd itself, on the connection.
fn answer(stream: TcpStream, dir: &Path) {
    let output = stream.try_clone().expect("a socket can be duplicated");
    let mut child = Command::new("/usr/libexec/tangd")
        .arg(dir)
        .stdin(Stdio::from(OwnedFd::from(stream)))
        .stdout(Stdio::from(OwnedFd::from(output)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("tangd: {e}. {MISSING}"));
    std::thread::spawn(move || child.wait());
}

/// A slow server is made of this; no test waits for time to pass.
fn pause(time: Duration) {
    let (_nobody, never) = channel::<()>();
    let _ = never.recv_timeout(time);
}

fn drip(mut stream: TcpStream) {
    let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n");
    while sent.is_ok() {
        pause(Duration::from_millis(20));
        sent = stream.write_all(b" ");
    }
}

fn say(mut stream: TcpStream, bytes: &[u8]) {
    // Read first: closing on unread bytes would reset the connection, and the answer with it.
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    let length = String::from_utf8_lossy(&head)
        .lines()
        .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").and_then(|n| n.trim().parse().ok()))
        .unwrap_or(0);
    let mut body = vec![0; length];
    let _ = stream.read_exact(&mut body);
    let _ = stream.write_all(bytes);
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{:?}: {e}. {MISSING}", command.get_program()));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const MISSING: &str = "Install the Debian package `tang`, or set EDGEKEEP_TEST_SKIP=tang";
