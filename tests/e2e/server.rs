//! Real servers beside the device: started, asked, told to stop; and how they are led to the device's store.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::device::Device;
use crate::part;

/// A server that is stopped with its test, and its log.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, log: log.to_owned() }
    }

    /// Asks until the answer is yes; a server that ends before, or never says it, is shown by its log.
    pub(crate) fn until(&mut self, mut ask: impl FnMut() -> bool) {
        #[allow(clippy::disallowed_methods)] // a real process's time
        let begun = std::time::Instant::now();
        while !ask() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.said());
            assert!(begun.elapsed().as_secs() < 120, "the server does not answer: {}", self.said());
            std::thread::yield_now();
        }
    }

    /// Waits until its log has these words.
    pub(crate) fn until_it_says(&mut self, words: &str) {
        let log = self.log.clone();
        self.until(|| std::fs::read_to_string(&log).is_ok_and(|said| said.contains(words)));
    }

    /// All that it, and those who wrote into the same log before, have said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What program it is now, and the user it runs as.
    pub(crate) fn is(&self) -> (String, u32) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        (field("Name:"), field("Uid:").split_whitespace().next().unwrap().parse().unwrap())
    }

    /// Sends a signal, and waits for the end.
    pub(crate) fn signal(&mut self, name: &str) -> ExitStatus {
        part::must(Command::new("kill").args(["-s", name, &self.child.id().to_string()]));
        self.ends()
    }

    /// Waits for its own end.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let _wait = testkit::LongestWait::of(&self.child, "a server ends");
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // PostgreSQL's fast shutdown; all others end by it as well.
            Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status().ok();
        }
        self.child.wait().ok();
    }
}

/// Runs the command as a container does, in a process space of its own, and kills all of it at the `nth` of these
/// system calls that one process makes. Whether it came to its good end before.
pub(crate) fn cut(command: &Command, calls: &str, nth: u32) -> bool {
    let strace = part::program("strace", "strace", &[]);
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut cut = Command::new(strace);
    cut.args(["-f", "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:signal=SIGKILL:when={nth}")]);
    cut.arg("-o").arg(trace.path());
    cut.args(["unshare", "--pid", "--fork", "--kill-child"]).arg(command.get_program()).args(command.get_args());
    cut.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        cut.current_dir(dir);
    }
    let output = cut.stdin(Stdio::null()).output().unwrap();
    // Whoever waited for what was killed ends as it likes.
    let killed = std::fs::read_to_string(trace.path()).unwrap().contains("+++ killed by SIGKILL +++");
    assert!(killed || output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    !killed
}

/// The system calls after which something else is on the disk.
pub(crate) const RENAMES: &str = "?rename,?renameat,?renameat2";
pub(crate) const SYNCS: &str = "fsync,fdatasync";

/// A directory that servers under users of their own can enter.
pub(crate) fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

/// A directory of a server's own.
pub(crate) fn dir_of((uid, gid): (u32, u32), path: PathBuf) -> PathBuf {
    std::fs::create_dir(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
    path
}

/// The variables by which EdgeX's compose files would lead a bootstrapper to this device's store.
pub(crate) fn to_store(command: &mut Command, device: &Device, service: &str) {
    command.env_clear().env("PATH", path()).stdin(Stdio::null());
    command.env("SECRETSTORE_PROTOCOL", "https").env("SECRETSTORE_HOST", &device.ip).env("SECRETSTORE_PORT", "8200");
    command.env("SECRETSTORE_TOKENFILE", device.secrets_dir().join(service).join("secrets-token.json"));
    command.env("EDGEX_STARTUP_DURATION", "120");
}

/// Where programs are; Debian keeps PostgreSQL's apart.
pub(crate) fn path() -> OsString {
    let usual = "/usr/sbin:/usr/bin:/sbin:/bin";
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten();
    let bins: Vec<PathBuf> = versions.map(|v| v.unwrap().path().join("bin")).collect();
    std::env::join_paths(bins.into_iter().chain(std::env::split_paths(usual))).unwrap()
}

/// Puts another credential in the place of one, by way of files: no password is an argument.
pub(crate) fn put(device: &Device, service: &str, at: &str, user: &str, password: &str) {
    let [user_file, password_file] = ["user", "password"].map(|name| device.dir().join(format!("put-{name}")));
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&user_file, user).unwrap();
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&password_file, password).unwrap();
    let pairs = [("username", &user_file), ("password", &password_file)].map(|(k, f)| format!("{k}=@{}", f.display()));
    let output =
        device.as_service(service, &["kv", "put", &format!("secret/edgex/{service}/{at}"), &pairs[0], &pairs[1]]);
    assert!(output.status.success(), "{output:?}");
}

/// Of a user of this machine.
pub(crate) fn number_of(user: &str) -> (u32, u32) {
    let id = |flag: &str| {
        let output = part::must(Command::new("id").args([flag, user]));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id("-u"), id("-g"))
}

/// Asks a Redis at its socket, as somebody or as nobody.
pub(crate) fn ask_redis(socket: &Path, login: Option<(&str, &str)>, question: &[&str]) -> String {
    let mut command = Command::new(part::program("redis-cli", "redis-server", &[]));
    command.arg("-s").arg(socket).arg("--no-auth-warning").env_clear();
    if let Some((user, password)) = login {
        command.args(["--user", user]).env("REDISCLI_AUTH", password);
    }
    let output = command.args(question).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Says something to a Mosquitto on this machine, as somebody or as nobody; whether it was let in.
pub(crate) fn tell_mosquitto(port: &str, login: Option<(&str, &str)>) -> bool {
    let mut command = Command::new(part::program("mosquitto_pub", "mosquitto-clients", &[]));
    command.args(["-h", "127.0.0.1", "-p", port, "-t", "t", "-m", "m"]);
    if let Some((user, password)) = login {
        command.args(["-u", user, "-P", password]);
    }
    command.output().unwrap().status.success()
}

/// A device of EdgeX whose services speak MQTT.
pub(crate) fn device_with_mqtt(dir: &Path) -> Device {
    let setup = dir.join("configuration.yaml");
    let yaml = std::fs::read_to_string(part::sample("edgex-secretstore-setup.yaml")).unwrap();
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&setup, yaml.replace("SecureMessageBus:\n  Type: none", "SecureMessageBus:\n  Type: mqtt")).unwrap();
    Device::new(&format!(
        "[edgex]\ntoken_config = {:?}\nsecretstore_setup = {setup:?}\n",
        part::sample("edgex-token-config.json")
    ))
}

/// Everything that quoting has ever been forgotten for.
pub(crate) const HOSTILE: &str = r#"a'b"c\d $(e) `f`;--%#:{g} @h/i"#;
