//! edgekeep as a service of a real systemd: a user instance in a place of its own, which needs no machine that was
//! booted by one.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use testkit::{Swtpm, is_skipped};

use crate::device::{Device, EDGEKEEP};

/// systemd, and the one unit that it has.
struct Systemd {
    dir: tempfile::TempDir,
    manager: Child,
}

impl Systemd {
    /// With this unit as edgekeep.service.
    fn start(service: &str) -> Self {
        let dir = testkit::scratch_dir();
        let units = dir.path().join("systemd/user");
        std::fs::create_dir_all(&units).unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        for (name, text) in
            [("default.target", "[Unit]\n"), ("basic.target", "[Unit]\n"), ("edgekeep.service", service)]
        {
            #[allow(clippy::disallowed_methods)]
            std::fs::write(units.join(name), text).unwrap();
        }
        let manager = inside(dir.path(), "exec /lib/systemd/systemd --user").stdout(Stdio::null()).spawn().unwrap();
        let mut this = Self { dir, manager };
        let socket = this.dir.path().join("run/systemd/private");
        until("systemd listens", || socket.exists() || this.manager.try_wait().unwrap().is_some());
        this.must("is-system-running --wait");
        this
    }

    fn systemctl(&self, arguments: &str) -> Output {
        inside(self.dir.path(), &format!("exec systemctl --user {arguments}")).output().unwrap()
    }

    fn must(&self, arguments: &str) {
        let output = self.systemctl(arguments);
        assert!(output.status.success(), "systemctl {arguments}: {output:?}");
    }

    fn property(&self, name: &str) -> String {
        let output = self.systemctl(&format!("show --property={name} --value edgekeep.service"));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // At SIGTERM it ends its services, and then itself.
        Command::new("kill").arg(self.manager.id().to_string()).status().ok();
        self.manager.wait().ok();
    }
}

/// Looks until it is so, for two minutes.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    #[allow(clippy::disallowed_methods)]
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed().as_secs() < 120, "{what}");
        std::thread::yield_now();
    }
}

/// A script in a mount namespace where the machine looks booted by systemd.
fn inside(dir: &Path, script: &str) -> Command {
    let script = format!("mount -t tmpfs none /run && mkdir -p /run/systemd/system && {script}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", dir).env("XDG_CONFIG_HOME", dir).env("XDG_RUNTIME_DIR", dir.join("run"));
    command.stdin(Stdio::null());
    command
}

/// At one release in a boot: a crash and a restart need no second one, because systemd hands back what it keeps; after
/// a stop it has nothing, and the device stays sealed.
#[test]
fn its_descriptor_store_is_a_keeper_over_crash_and_restart_and_ends_with_a_stop() {
    if is_skipped("swtpm") || is_skipped("systemd") {
        return;
    }
    let tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let mut device = Device::with_services(&["sensor"]);
    let source = format!("kind = \"tpm\"\ndevice = {:?}\npcrs = [7]\nreleases_per_boot = 1\n", tpm.socket());
    device.replace_section("source", &source);
    device.add("[release]\nafter_close = \"keeper\"\n");
    let unit = format!(
        "[Service]\nType=exec\nExecStart={EDGEKEEP} up --config {}\nRestart=always\nRestartSec=10ms\n\
         NotifyAccess=main\nFileDescriptorStoreMax=1\nEnvironment=FDSTORE=1\n",
        device.config().display()
    );
    let systemd = Systemd::start(&unit);
    systemd.must("start edgekeep.service");
    device.wait_for_gate("ready-to-run");
    let put = device.as_service("sensor", &["kv", "put", "secret/edgex/sensor/kept", "n=1"]);
    assert!(put.status.success(), "{put:?}");
    let token = device.token("sensor");
    assert_eq!(systemd.property("NFileDescriptorStore"), "1");
    for restart in ["kill --signal=KILL", "restart"] {
        let before = systemd.property("MainPID");
        systemd.must(&format!("{restart} edgekeep.service"));
        until("it runs anew", || ![before.as_str(), "0"].contains(&systemd.property("MainPID").as_str()));
        device.until_gate("ready-to-run", true);
        assert_eq!(device.token("sensor"), token, "{restart}: the token of before");
        assert_eq!(device.field("sensor", "secret/edgex/sensor/kept", "n"), "1", "{restart}");
        assert_eq!(systemd.property("NFileDescriptorStore"), "1", "{restart}");
    }
    systemd.must("stop edgekeep.service");
    assert_eq!(systemd.property("NFileDescriptorStore"), "0");
    let said = device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
    assert!(!said.contains("listens"), "{said}");
    device.kill();
}

/// How the packaged unit has a start repeated, without its pauses.
fn restarts(device: &Device) -> String {
    let packaged = std::fs::read_to_string(crate::part::root().join("packaging/edgekeep.service")).unwrap();
    let lines =
        |key: &str| packaged.lines().filter(|l| l.starts_with(key)).map(|l| format!("{l}\n")).collect::<String>();
    assert!(lines("ExecStartPre=").is_empty(), "what ends a check would keep the service from its start");
    format!(
        "[Unit]\n{}[Service]\nType=exec\nExecStart={EDGEKEEP} up --config {}\n{}RestartSec=10ms\nRestartSteps=0\n",
        lines("StartLimit"),
        device.config().display(),
        lines("Restart"),
    )
}

/// More starts than systemd would allow by itself; then there is room, and the device is well without anybody's help.
#[test]
fn a_first_boot_on_a_full_disk_becomes_well_by_itself_when_there_is_room() {
    if is_skipped("systemd") || is_skipped("mounts") {
        return;
    }
    let device = Device::new("[[service]]\nname = \"sensor\"\n[audit]\nsegments = 3\nsegment_kib = 512\n");
    let disk = crate::part::Mount::new(&device.dir().join("disk"), "size=256k");
    device.set("data_dir", &format!("{:?}", disk.path().join("edgekeep")));
    let systemd = Systemd::start(&restarts(&device));
    systemd.systemctl("start edgekeep.service");
    let count = || systemd.property("NRestarts").parse::<u32>().unwrap();
    until("it is started again and again", || count() > 6);
    crate::part::must(Command::new("mount").args(["-o", "remount,size=16m"]).arg(disk.path()));
    device.until_gate("ready-to-run", true);
    systemd.must("stop edgekeep.service");
    // What somebody has to edit is not tried again.
    device.set("run_dir", "\"relative\"");
    systemd.systemctl("start edgekeep.service");
    until("it has ended", || systemd.property("ActiveState") == "failed");
    assert_eq!((systemd.property("ExecMainStatus"), count()), ("64".into(), 0));
}
