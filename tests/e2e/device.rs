//! One device: a configuration, a data directory on disk, a run directory on a tmpfs, and the executable.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use crate::part;

/// The executable under test.
pub(crate) const EDGEKEEP: &str = env!("CARGO_BIN_EXE_edgekeep");

pub(crate) struct Device {
    dir: tempfile::TempDir,
    run: tempfile::TempDir,
    /// Of 127.0.0.0/8, this device's own: no two tests share a port.
    pub(crate) ip: String,
    child: Option<Child>,
    /// The other end of its standard error, where that is no file: as long as this is held it can write there.
    stderr: Option<Lines<BufReader<ChildStderr>>>,
    /// The one that is installed: the one under test, wherever that lies.
    executable: PathBuf,
    /// What stands before the executable: another boot id, another network.
    before: Vec<String>,
    /// Who starts it, in systemd's place.
    manager: Option<testkit::ServiceManager>,
    /// `up` is told not to rest after starts that came to nothing.
    pub(crate) at_once: bool,
    boots: u32,
}

impl Device {
    /// A device with these sections besides the usual ones.
    pub(crate) fn new(sections: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run = tempfile::Builder::new().prefix("edgekeep-e2e-").tempdir_in("/dev/shm").unwrap();
        let ip = testkit::loopback().to_string();
        let text = format!(
            "data_dir = {data:?}\nrun_dir = {run:?}\n\
             [source]\nkind = \"software\"\npath = {key:?}\ndanger_software_key = true\n\
             [recovery]\nnone = true\n\
             [listen]\naddress = \"{ip}:8200\"\nnames = [\"{ip}\", \"localhost\"]\n{sections}",
            data = dir.path().join("data"),
            run = run.path().join("run"),
            key = dir.path().join("device.key"),
        );
        #[allow(clippy::disallowed_methods)]
        std::fs::write(dir.path().join("edgekeep.toml"), text).unwrap();
        Self {
            dir,
            run,
            ip,
            child: None,
            stderr: None,
            executable: EDGEKEEP.into(),
            before: Vec::new(),
            manager: None,
            at_once: false,
            boots: 0,
        }
    }

    /// A guest in another's store, by these sections alone.
    pub(crate) fn elsewhere(sections: &str) -> Self {
        Self::with_text(|_, _| sections.to_owned())
    }

    /// The owner of a store in another process, with a key in a file.
    pub(crate) fn keeping(sections: &str) -> Self {
        Self::with_text(|dir, _| {
            let key = dir.join("device.key");
            format!(
                "[source]\nkind = \"software\"\npath = {key:?}\ndanger_software_key = true\n\
                 [recovery]\nnone = true\n{sections}"
            )
        })
    }

    fn with_text(sections: impl Fn(&Path, &str) -> String) -> Self {
        let device = Self::new("");
        let text = format!("data_dir = {:?}\nrun_dir = {:?}\n", device.data_dir(), device.run_dir());
        #[allow(clippy::disallowed_methods)]
        std::fs::write(device.config(), text + &sections(device.dir.path(), &device.ip)).unwrap();
        device
    }

    /// What `up --check` prints.
    pub(crate) fn plan(&self) -> String {
        let output = self.edgekeep().args(["up", "--check", "--config"]).arg(self.config()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Looks until the gate is open, or until it is shut.
    pub(crate) fn until_gate(&self, gate: &str, open: bool) {
        #[allow(clippy::disallowed_methods)]
        let began = std::time::Instant::now();
        while (self.wait(&["--gate", gate, "--timeout", "0"]).0 == Some(0)) != open {
            assert!(
                began.elapsed().as_secs() < 120,
                "{gate} is not {}: {}",
                if open { "open" } else { "shut" },
                self.said()
            );
        }
    }

    /// A device with these services.
    pub(crate) fn with_services(names: &[&str]) -> Self {
        let mut sections = String::new();
        for name in names {
            writeln!(sections, "[[service]]\nname = \"{name}\"").unwrap();
        }
        Self::new(&sections)
    }

    /// A device that reads EdgeX's own files: all 18 services, their credentials.
    pub(crate) fn edgex() -> Self {
        Self::new(&format!(
            "[edgex]\ntoken_config = {:?}\nsecretstore_setup = {:?}\ntoken_provider = {:?}\n",
            part::sample("edgex-token-config.json"),
            part::sample("edgex-secretstore-setup.yaml"),
            part::sample("edgex-file-token-provider.yaml"),
        ))
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("edgekeep.toml")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Adds sections to the configuration.
    pub(crate) fn add(&self, sections: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        #[allow(clippy::disallowed_methods)]
        std::fs::write(self.config(), text + sections).unwrap();
    }

    /// Puts another value in the place of a key's, where it is first named.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let line = text.lines().find(|l| l.starts_with(&format!("{key} = "))).expect("the key is there").to_owned();
        #[allow(clippy::disallowed_methods)]
        std::fs::write(self.config(), text.replacen(&line, &format!("{key} = {value}"), 1)).unwrap();
    }

    /// Puts other keys in the place of a section's.
    pub(crate) fn replace_section(&self, section: &str, keys: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let (before, rest) = text.split_once(&format!("[{section}]\n")).expect("the section is there");
        let after = rest.find("\n[").map_or("", |at| &rest[at + 1..]);
        #[allow(clippy::disallowed_methods)]
        std::fs::write(self.config(), format!("{before}[{section}]\n{keys}{after}")).unwrap();
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.run.path().join("run")
    }

    pub(crate) fn secrets_dir(&self) -> PathBuf {
        self.run_dir().join("secrets")
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}:8200", self.ip)
    }

    pub(crate) fn ca(&self, service: &str) -> PathBuf {
        self.secrets_dir().join(service).join("ca.pem")
    }

    pub(crate) fn token(&self, service: &str) -> String {
        let text = std::fs::read(self.secrets_dir().join(service).join("secrets-token.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        json["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// Starts `edgekeep up` and waits until the last gate is open.
    pub(crate) fn up(&mut self) {
        self.start();
        self.wait_for_gate("ready-to-run");
    }

    /// Starts `edgekeep up` and does not wait.
    pub(crate) fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let child = self
            .edgekeep()
            .args(["up", "--config"])
            .arg(self.config())
            .args(self.at_once.then_some("--at-once"))
            .stdin(self.handed())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Runs `edgekeep up`, which is to end by itself: its code, and what it said on standard error, without lines of
    /// the log.
    pub(crate) fn ends(&self) -> (Option<i32>, String) {
        self.ends_with(&["up"])
    }

    /// Runs `edgekeep up --check`: its code, and what it said on standard error.
    pub(crate) fn checks(&self) -> (Option<i32>, String) {
        self.ends_with(&["up", "--check"])
    }

    fn ends_with(&self, words: &[&str]) -> (Option<i32>, String) {
        let up = self.edgekeep();
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "120"]).arg(up.get_program()).args(up.get_args());
        command.args(words).arg("--config").arg(self.config()).env_clear().env("PATH", PATH);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let is_log = |line: &&str| line.contains("Z ERROR ") || line.contains("Z  WARN ");
        let said: Vec<&str> = said.lines().filter(|line| !is_log(line)).collect();
        (output.status.code(), said.join("\n"))
    }

    /// Starts `edgekeep up`, and reads what it says on standard error up to this line, which is to come.
    pub(crate) fn up_until(&mut self, line: &str) -> String {
        self.up_until_it_says(|said| said == line)
    }

    /// Starts `edgekeep up`, and reads what it says on standard error up to the first line that is meant, which is to
    /// come.
    pub(crate) fn up_until_it_says(&mut self, meant: impl Fn(&str) -> bool) -> String {
        let mut up = self.edgekeep();
        up.args(["up", "--config"]).arg(self.config()).args(self.at_once.then_some("--at-once"));
        up.stdin(self.handed()).stdout(Stdio::null());
        let mut child = up.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let _wait = testkit::LongestWait::of(&child, "edgekeep says what it should");
        self.child = Some(child);
        let mut said = String::new();
        while let Some(next) = lines.next() {
            let next = next.unwrap();
            if meant(&next) {
                self.stderr = Some(lines);
                return said;
            }
            said.push_str(&next);
            said.push('\n');
        }
        panic!("it has ended, and not said what it should: {said}");
    }

    /// Runs `edgekeep wait`: its code, and what it said on standard error.
    pub(crate) fn wait(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut wait = self.edgekeep();
        let output = wait.arg("wait").args(arguments).arg("--run-dir").arg(self.run_dir()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) fn wait_for_gate(&mut self, gate: &str) {
        let run_dir = self.run_dir();
        let output = self
            .edgekeep()
            .args(["wait", "--gate", gate, "--timeout", "120s", "--run-dir"])
            .arg(&run_dir)
            .output()
            .unwrap();
        let ended = self.child.as_mut().and_then(|c| c.try_wait().unwrap());
        assert!(output.status.success(), "{gate}: {output:?}; up: {ended:?}\n{}", self.said());
    }

    /// From now on the device runs in another boot of the kernel: its id is bind-mounted over, in a mount namespace.
    /// What a tmpfs held is gone.
    pub(crate) fn reboot(&mut self) {
        self.leaves_nothing_running();
        self.boots += 1;
        let file = self.dir.path().join("boot-id");
        #[allow(clippy::disallowed_methods)]
        std::fs::write(&file, format!("00000000-0000-4000-8000-{:012}\n", self.boots)).unwrap();
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        self.before = ["unshare", "--mount", "sh", "-c", script].map(str::to_owned).to_vec();
        self.before.push(file.display().to_string());
        #[allow(clippy::disallowed_methods)]
        std::fs::remove_dir_all(self.run_dir()).unwrap();
    }

    /// The device serves in another network, at this address.
    pub(crate) fn listen_in(&mut self, ip: &Path, network: &str, address: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap().replace(&self.ip, address);
        #[allow(clippy::disallowed_methods)]
        std::fs::write(self.config(), text).unwrap();
        address.clone_into(&mut self.ip);
        self.before = [&ip.display().to_string(), "netns", "exec", network].map(str::to_owned).to_vec();
    }

    /// The executable, in this device's boot and network.
    pub(crate) fn edgekeep(&self) -> Command {
        let managed = self.manager.as_ref().map(testkit::ServiceManager::words).unwrap_or_default();
        let executable = self.executable.to_str().expect("a path of this machine is text");
        let mut words = self.before.iter().chain(&managed).map(String::as_str).chain([executable]);
        let mut command = Command::new(words.next().expect("the executable at least"));
        command.args(words).env_clear().env("PATH", PATH);
        // A mitigation that is switched off is off there too.
        let switch = host::SWITCH.and_then(|switch| Some((switch, std::env::var_os(switch)?)));
        command.envs(switch);
        command
    }

    /// Installs the executable as package managers do: a file of its own takes the place of the one before, which runs
    /// on without a name.
    pub(crate) fn install(&mut self) {
        use host::Disk;
        let (installed, new) = (self.dir.path().join("edgekeep"), self.dir.path().join("edgekeep.new"));
        testkit::copy_program(Path::new(EDGEKEEP), &new);
        host::OsDisk.rename(&new, &installed, true).unwrap();
        self.executable = installed;
    }

    /// From now on the device has this executable.
    pub(crate) fn runs(&mut self, executable: &Path) {
        executable.clone_into(&mut self.executable);
    }

    /// From now on `up` runs under an init of its own, in a kernel that has run for so long. An init that is asked for
    /// a restart, by the signal of Ctrl-Alt-Del, ends with `code`, and everything with it.
    pub(crate) fn under_init(&mut self, uptime: std::time::Duration, code: u8) {
        let init = format!("trap 'exit {code}' INT; \"$@\" & wait");
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let offset = i64::try_from(uptime.as_secs()).unwrap() - now.tv_sec;
        let namespaces = ["unshare", "--mount-proc", "--pid", "--fork", "--kill-child", "--time", "--boottime"];
        // A shell cannot trap what was ignored when it began, as SIGINT is below whoever was put in the background.
        let shell = ["env", "--default-signal=INT", "sh", "-c"];
        self.before = namespaces.map(str::to_owned).to_vec();
        self.before.push(offset.to_string());
        self.before.extend(shell.map(str::to_owned));
        self.before.extend([init, "init".into()]);
    }

    /// From now on everything that it writes, to files, sockets and pipes, is noted in this file.
    pub(crate) fn traced_to(&mut self, file: &Path) {
        let calls = "trace=write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendmmsg,vmsplice";
        let words =
            ["strace", "-f", "-qq", "-A", "-y", "-xx", "-s", "100000000", "-e", calls, "-e", "signal=none", "-o"];
        self.before = words.map(str::to_owned).to_vec();
        self.before.push(file.display().to_string());
    }

    /// SIGTERM to what stands behind the words before it.
    pub(crate) fn stop_behind(&mut self) -> Option<i32> {
        let pid = self.pid();
        let behind = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        part::must(Command::new("kill").arg(behind.trim()));
        self.child.take().unwrap().wait().unwrap().code()
    }

    /// From now on it is started with this on descriptor 5, which is a pipe.
    pub(crate) fn handed_on_5(&mut self, text: &str) {
        let script = format!("exec 5<<END\n{text}\nEND\nexec \"$@\"");
        self.before = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    }

    /// From now on it is started by a service manager.
    pub(crate) fn managed_by(&mut self, manager: testkit::ServiceManager) {
        self.manager = Some(manager);
    }

    pub(crate) fn manager(&self) -> &testkit::ServiceManager {
        self.manager.as_ref().expect("there is one")
    }

    /// What the service manager hands to the next start.
    fn handed(&self) -> Stdio {
        let kept = self.manager.as_ref().map(testkit::ServiceManager::kept).unwrap_or_default();
        kept.into_iter().next().map_or_else(Stdio::null, |(_, fd)| fd.into())
    }

    /// The recovery key goes to this file.
    pub(crate) fn recover_to(&mut self, file: &Path) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let text = text.replace("[recovery]\nnone = true", &format!("[recovery]\nout = {file:?}"));
        #[allow(clippy::disallowed_methods)]
        std::fs::write(self.config(), text).unwrap();
    }

    /// How `up` ended, in words.
    pub(crate) fn ended(&mut self) -> String {
        self.child.take().unwrap().wait().unwrap().to_string()
    }

    /// The child of `up` that runs as this command.
    pub(crate) fn beside(&self, command: &str) -> Option<u32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
        let children = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
        let all: Vec<u32> = children
            .flat_map(|pids| pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        // `/proc/self/exe` `command` ...
        let runs = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|words| words.split(|b| *b == 0).nth(1) == Some(command.as_bytes()))
        };
        all.into_iter().find(runs)
    }

    /// Whether `up` has not ended.
    pub(crate) fn is_up(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGKILL, and then what those that it leaves behind say, up to the line that is meant. After
    /// [`Device::up_until_it_says`].
    pub(crate) fn kill_until_it_is_said(&mut self, meant: impl Fn(&str) -> bool) {
        self.kill();
        let lines = self.stderr.take().unwrap();
        assert!(lines.map_while(Result::ok).any(|line| meant(&line)), "nobody said so");
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        part::must(Command::new("kill").arg(child.id().to_string()));
        let _wait = testkit::LongestWait::of(&child, "edgekeep ends at SIGTERM");
        child.wait().unwrap().code()
    }

    /// What it and those that it leaves behind still say, to the end of the last of them. After
    /// [`Device::up_until_it_says`].
    pub(crate) fn last_words(&mut self) -> String {
        self.stderr.take().unwrap().map_while(Result::ok).collect::<Vec<_>>().join("\n")
    }

    /// Waits for those that it has left behind: a guard that outlived a reset of the TPM, as none does on a device,
    /// would close it in the boot that follows.
    fn leaves_nothing_running(&mut self) {
        if let Some(lines) = self.stderr.take() {
            lines.for_each(drop);
        }
    }

    /// A client command with a token of one's own.
    pub(crate) fn with_token(&self, token: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(EDGEKEEP);
        command.args(arguments).env_clear().env("VAULT_ADDR", self.url()).env("VAULT_TOKEN", token);
        command.env("VAULT_CACERT", self.run_dir().join("ca.pem")).stdin(Stdio::null()).output().unwrap()
    }

    /// A client command as a service.
    pub(crate) fn as_service(&self, service: &str, arguments: &[&str]) -> Output {
        Command::new(EDGEKEEP)
            .args(["--as", service])
            .args(arguments)
            .env_clear()
            .env("EDGEKEEP_RUN_DIR", self.run_dir())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// A command for the admin socket.
    pub(crate) fn admin(&self, arguments: &[&str]) -> Output {
        let mut command = self.edgekeep();
        command.args(arguments).arg("--admin-socket").arg(self.run_dir().join("admin/admin.sock"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The text of one field of a secret, read as a service.
    pub(crate) fn field(&self, service: &str, path: &str, field: &str) -> String {
        let output = self.as_service(service, &["kv", "get", &format!("-field={field}"), path]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The service `sensor` writes a secret, for [`Device::kept`] to find.
    pub(crate) fn keep(&self) {
        let output = self.as_service("sensor", &["kv", "put", "secret/edgex/sensor/kept", "n=1"]);
        assert!(output.status.success(), "{output:?}");
    }

    /// What `sensor` finds of it.
    pub(crate) fn kept(&self) -> String {
        self.field("sensor", "secret/edgex/sensor/kept", "n")
    }

    /// A file of the device's gets another content.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) {
        use host::Disk;
        host::OsDisk.replace(path, bytes, 0o600, None).unwrap();
    }

    /// What `edgekeep ikm status` prints.
    pub(crate) fn ikm_status(&self) -> String {
        let output = self.edgekeep().args(["ikm", "status", "--config"]).arg(self.config()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts `edgekeep up`, which is to say these words and open nothing, and ends it.
    pub(crate) fn stays_sealed(&mut self, words: &str) {
        let said = self.up_until_it_says(|line| line.contains(words));
        assert!(!said.contains("ready-to-run"), "{said}");
        self.kill();
        self.leaves_nothing_running();
    }

    /// All that `up` has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- what edgekeep said\n{}", self.said());
        }
    }
}

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
