//! Images FROM scratch, run by podman: the executable and nothing else, with the TPM passed in.
//!
//! In them is the artefact that `EDGEKEEP_ARTEFACT` names (`cargo xtask release --check` does), static as it is;
//! otherwise the executable under test, with the libraries that it is linked with.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::device::EDGEKEEP;
use crate::ikm::{Hook, line, refused};
use crate::part;

/// podman, with images and containers of its own, which go with the test.
struct Podman {
    dir: tempfile::TempDir,
    program: PathBuf,
}

const IMAGE: &str = "localhost/edgekeep:test";

impl Podman {
    /// With the image of packaging/Containerfile.
    fn with_image() -> Option<Self> {
        if part::is_skipped("podman") {
            return None;
        }
        part::program("runc", "runc", &["/usr/sbin"]);
        let podman = Self { dir: tempfile::tempdir().unwrap(), program: part::program("podman", "podman", &[]) };
        let (context, packaging) = (podman.dir.path().join("image"), part::root().join("packaging"));
        let (root, executable) = (context.join("root"), executable());
        std::fs::create_dir(&context).unwrap();
        part::must(Command::new(packaging.join("layout.sh")).arg(&root).arg(&executable));
        for library in part::linked_with(&executable) {
            let to = root.join(library.strip_prefix("/").unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&library, to).unwrap();
        }
        let file = packaging.join("Containerfile");
        part::must(podman.command("build").args(["--quiet", "--tag", IMAGE, "--file"]).arg(file).arg(&context));
        Some(podman)
    }

    /// What works without systemd, as root in a container or virtual machine of a build server, too.
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.dir.path().join("storage")).arg("--runroot").arg(self.dir.path().join("run"));
        command.args(["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
        command.args(["--events-backend", "none", verb]).stdin(Stdio::null());
        command
    }

    /// A container in this network with these directories, of root's rights none but `capabilities`, and nothing else
    /// that could be written to.
    fn run(&self, network: &str, capabilities: &[&str], mounts: &[(&Path, &str)]) -> Command {
        let mut command = self.command("run");
        command.args(["--network", network, "--read-only", "--security-opt", "no-new-privileges", "--cap-drop", "all"]);
        // Limits that nobody has to be allowed to raise.
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=10000:10000", "--ulimit", "core=0:0"]);
        command.args(capabilities.iter().flat_map(|c| ["--cap-add", c]));
        for (from, to) in mounts {
            command.arg("--volume").arg(format!("{}:{to}", from.display()));
        }
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for verb in [&["rm", "--force", "--all", "--time", "0"][..], &["rmi", "--force", "--all"]] {
            self.command(verb[0]).args(&verb[1..]).output().ok();
        }
    }
}

fn executable() -> PathBuf {
    std::env::var_os("EDGEKEEP_ARTEFACT").map_or_else(|| EDGEKEEP.into(), PathBuf::from)
}

/// The two files of a hook, as its container has them, and the directory of the TPM's socket.
fn etc_of(hook: &Hook, slot: &Path, more: &str) -> PathBuf {
    let etc = hook.path("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::copy(slot, etc.join("ikm-hook.slot")).unwrap();
    let text = format!("[source]\nkind = \"tpm\"\ndevice = \"/tpm/sock\"\npcrs = [7]\n{more}");
    hook.write("etc/ikm-hook.toml", &text, 0o600);
    etc
}

fn tpm_of(hook: &Hook) -> PathBuf {
    hook.tpm.socket().parent().unwrap().to_owned()
}

#[test]
fn a_hook_from_scratch_gives_what_was_agreed_and_then_no_more() {
    let Some(podman) = Podman::with_image() else { return };
    let more = "releases_per_boot = 3\n";
    let Some(mut hook) = Hook::new(more) else { return };
    let slot = hook.provision("one.slot");
    let (etc, tpm) = (etc_of(&hook, &slot, more), tpm_of(&hook));
    let expected = line(&hook.print(&slot));
    // EdgeX calls a hook without arguments; no capability, no network, no file that could be written.
    let print = || {
        let mut command = podman.run("none", &[], &[(&etc, "/etc/edgekeep:ro"), (&tpm, "/tpm")]);
        command.args(["--rm", "--entrypoint", "/usr/bin/edgekeep-ikm", IMAGE]).output().unwrap()
    };
    for _ in 0..2 {
        assert_eq!(line(&print()), expected);
    }
    assert!(refused(&print()).contains("gives nothing more in this boot"));
    hook.tpm.reboot();
    hook.tpm.extend(7, 0x77);
    assert_eq!(line(&print()), expected);
    hook.tpm.reboot();
    hook.tpm.extend(7, 0x78);
    assert!(refused(&print()).contains("PCR 7 is"), "another firmware");
    // The other way of EdgeX's containers: a command.
    hook.tpm.reboot();
    hook.tpm.extend(7, 0x77);
    let mut command = podman.run("none", &[], &[(&etc, "/etc/edgekeep:ro"), (&tpm, "/tpm")]);
    let (slot, config) = ("/etc/edgekeep/ikm-hook.slot", "/etc/edgekeep/ikm-hook.toml");
    command.args(["--rm", IMAGE, "ikm", "tpm", "--slot", slot, "--config", config]);
    assert_eq!(line(&command.output().unwrap()), expected);
}

/// A device in a container: its store unseals by EdgeX's own variable, which names the hook beside it; services find
/// its socket in a directory that they share.
struct Contained<'p> {
    podman: &'p Podman,
    mounts: Vec<(PathBuf, &'static str)>,
    _memory: tempfile::TempDir,
    run: PathBuf,
}

impl<'p> Contained<'p> {
    fn new(podman: &'p Podman, hook: &Hook, etc: PathBuf) -> Self {
        let text = "data_dir = \"/var/lib/edgekeep/data\"\nrun_dir = \"/run/edgekeep/run\"\n[source]\nkind = \"exec\"\n\
                    [recovery]\nnone = true\n[listen]\naddress = \"127.0.0.1:8200\"\nnames = [\"localhost\"]\n\
                    [[service]]\nname = \"sensor\"\n";
        hook.write("etc/edgekeep.toml", text, 0o600);
        let memory = tempfile::Builder::new().prefix("edgekeep-e2e-").tempdir_in("/dev/shm").unwrap();
        let state = hook.path("state");
        std::fs::create_dir(&state).unwrap();
        let run = memory.path().join("run");
        let mounts = vec![
            (etc, "/etc/edgekeep:ro"),
            (tpm_of(hook), "/tpm"),
            (state, "/var/lib/edgekeep"),
            (memory.path().to_owned(), "/run/edgekeep"),
        ];
        Self { podman, mounts, _memory: memory, run }
    }

    /// Starts it, with what systemd's unit leaves it of root's rights.
    fn start(&self) {
        let mounts: Vec<(&Path, &str)> = self.mounts.iter().map(|(from, to)| (from.as_path(), *to)).collect();
        let mut command = self.podman.run("none", &["CHOWN", "FOWNER", "DAC_OVERRIDE", "IPC_LOCK"], &mounts);
        command.args(["--detach", "--name", "device", "--env", "EDGEX_IKM_HOOK=/usr/bin/edgekeep-ikm"]);
        part::must(command.args([IMAGE, "up"]));
    }

    fn exec(&self, arguments: &[&str]) -> Output {
        let mut command = self.podman.command("exec");
        command.args(["device", "/usr/bin/edgekeep"]).args(arguments).output().unwrap()
    }

    fn until_ready(&self, timeout: &str) -> Option<i32> {
        let gate = ["wait", "--gate", "ready-to-run", "--run-dir", "/run/edgekeep/run", "--timeout", timeout];
        self.exec(&gate).status.code()
    }

    /// As a service in a container of its own beside it: it has the network and what was delivered.
    fn as_service(&self, arguments: &[&str]) -> Output {
        let mut command = self.podman.run("container:device", &[], &[(&self.run, "/run/edgekeep:ro")]);
        command.args(["--rm", "--env", "EDGEKEEP_RUN_DIR=/run/edgekeep", IMAGE, "--as", "sensor"]);
        command.args(arguments).output().unwrap()
    }

    fn said(&self) -> String {
        let output = self.podman.command("logs").arg("device").output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn end(&self, signal: &str) {
        part::must(self.podman.command("kill").args(["--signal", signal, "device"]));
        self.podman.command("wait").arg("device").output().unwrap();
        part::must(self.podman.command("rm").arg("device"));
    }
}

#[test]
fn a_store_from_scratch_unseals_by_the_hook_beside_it() {
    let Some(podman) = Podman::with_image() else { return };
    let Some(mut hook) = Hook::new("") else { return };
    let slot = hook.provision("one.slot");
    let etc = etc_of(&hook, &slot, "");
    let device = Contained::new(&podman, &hook, etc);
    device.start();
    assert_eq!(device.until_ready("120s"), Some(0), "{}", device.said());
    let put = device.as_service(&["kv", "put", "secret/edgex/sensor/kept", "n=1"]);
    assert!(put.status.success(), "{put:?}");
    assert!(device.run.join("secrets/sensor/secrets-token.json").exists(), "the token is where its service looks");
    // Killed, and told to stop: the next container opens what the one before has left.
    for signal in ["KILL", "TERM"] {
        device.end(signal);
        device.start();
        assert_eq!(device.until_ready("120s"), Some(0), "{}", device.said());
        let kept = device.as_service(&["kv", "get", "-field=n", "secret/edgex/sensor/kept"]);
        assert_eq!(kept.stdout.trim_ascii(), b"1", "{kept:?}");
    }
    device.end("TERM");
    // Another kernel was booted: the same image and the same disk open nothing.
    hook.tpm.reboot();
    hook.tpm.extend(7, 0x78);
    device.start();
    assert_ne!(device.until_ready("3s"), Some(0), "{}", device.said());
    part::until(|| device.said().contains("PCR 7 is"), || device.said());
    device.end("TERM");
}

/// What an image or package holds: the names by which others call it, and nothing that more than root can write to.
#[test]
fn a_layout_has_every_name_and_no_loose_mode() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let mut layout = Command::new(part::root().join("packaging/layout.sh"));
    part::must(layout.arg(&root).args([OsStr::new(EDGEKEEP), OsStr::new("/bin/true")]));
    let mut found = Vec::new();
    let mut left = vec![root.clone()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                left.push(path.clone());
            }
            assert!(meta.is_symlink() || meta.permissions().mode() & 0o022 == 0, "{}", path.display());
            if !meta.is_dir() {
                found.push(format!("/{}", path.strip_prefix(&root).unwrap().display()));
            }
        }
    }
    found.sort();
    assert_eq!(
        found,
        [
            "/usr/bin/edgekeep",
            "/usr/bin/edgekeep-ikm",
            "/usr/bin/security-bootstrapper",
            "/usr/bin/security-file-token-provider",
            "/usr/bin/security-secretstore-setup",
            "/usr/lib/systemd/system/edgekeep.service",
            "/usr/libexec/edgekeep/ikm-pkcs11",
            "/usr/share/doc/edgekeep/copyright",
            "/usr/share/doc/edgekeep/edgekeep.toml",
            "/usr/share/doc/edgekeep/escrow/devices-edgekeep.hcl",
            "/usr/share/doc/edgekeep/escrow/devices-kv.hcl",
            "/usr/share/doc/edgekeep/escrow/devices.hcl",
        ]
    );
    assert_eq!(std::fs::metadata(root.join("etc/edgekeep")).unwrap().permissions().mode() & 0o777, 0o700);
    for name in ["security-bootstrapper", "security-secretstore-setup", "security-file-token-provider"] {
        let help = part::must(Command::new(root.join("usr/bin").join(name)).arg("--help"));
        assert!(String::from_utf8(help.stdout).unwrap().contains(name), "{name} is no such program");
    }
}

/// Two packages: all of it is root's, and whoever has the helper has the edgekeep that it was built with.
#[test]
fn packages_are_roots_and_fit_each_other() {
    if part::is_skipped("dpkg") {
        return;
    }
    let (dir, packaging) = (tempfile::tempdir().unwrap(), part::root().join("packaging"));
    let (root, out) = (dir.path().join("root"), dir.path());
    // Any programs will do.
    part::must(Command::new(packaging.join("layout.sh")).arg(&root).args(["/bin/true", "/bin/true"]));
    let package = |maintainer: &[&str]| {
        let mut command = Command::new(packaging.join("deb.sh"));
        command.arg(&root).args(["0.1.0", "all"]).arg(out).args(maintainer);
        command
    };
    for (maintainer, told) in [(&[][..], "MAINTAINER"), (&["somebody"], "\"somebody\" is not of the form")] {
        let refused = package(maintainer).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains(told), "{said}");
    }
    let maintainer = "A Vendor <edge@vendor.example>";
    part::must(&mut package(&[maintainer]));
    let look = |option: &str, package: &str| {
        let file = out.join(format!("{package}_0.1.0_all.deb"));
        let output = part::must(Command::new(part::program("dpkg-deb", "dpkg", &[])).arg(option).arg(file));
        String::from_utf8(output.stdout).unwrap()
    };
    let (main, helper) = (look("--contents", "edgekeep"), look("--contents", "edgekeep-ikm-pkcs11"));
    assert!(main.contains("drwx------ root/root") && main.contains("./usr/bin/edgekeep-ikm -> edgekeep"), "{main}");
    assert!(!main.contains("ikm-pkcs11") && helper.contains("./usr/libexec/edgekeep/ikm-pkcs11"), "{helper}");
    assert!((main + &helper).lines().all(|line| line.contains(" root/root ")));
    let depends = look("--field", "edgekeep-ikm-pkcs11");
    assert!(
        depends.contains(&format!("Maintainer: {maintainer}\n")) && depends.contains("Homepage: https://"),
        "{depends}"
    );
    assert!(depends.contains("Depends: edgekeep (= 0.1.0), libc6 (>= 2."), "{depends}");
}
