//! Sources that are closed as soon as the store is open, and what a start in the same boot goes by then.

use std::process::{Command, Stdio};

use testkit::{ServiceManager, Swtpm, is_skipped};

use crate::device::{Device, EDGEKEEP};

fn device(tpm: &Swtpm, release: &str) -> Device {
    let device = Device::with_services(&["sensor"]);
    let source = format!("kind = \"tpm\"\ndevice = {:?}\npcrs = [7]\nreleases_per_boot = 8\n", tpm.socket());
    device.replace_section("source", &source);
    device.add(&format!("[release]\n{release}"));
    device
}

fn next_boot(device: &mut Device, tpm: &mut Swtpm) {
    tpm.reboot();
    tpm.extend(7, 0x77);
    device.reboot();
}

fn put(device: &Device) {
    let output = device.as_service("sensor", &["kv", "put", "secret/edgex/sensor/kept", "n=1"]);
    assert!(output.status.success(), "{output:?}");
}

/// Crash, restart and a seal, in one boot and the next, of eight releases of which one is used.
#[test]
fn a_keeper_opens_what_the_closed_tpm_does_not_until_it_is_sealed() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let mut device = device(&tpm, "after_close = \"keeper\"\n");
    device.up();
    put(&device);
    let token = device.token("sensor");
    for crash in [true, false] {
        if crash {
            device.kill();
        } else {
            assert_eq!(device.stop(), Some(0));
        }
        device.up();
        assert_eq!(device.token("sensor"), token, "the token of before");
        assert_eq!(device.field("sensor", "secret/edgex/sensor/kept", "n"), "1");
    }
    let socket = device.run_dir().join("admin/keeper.sock");
    let keeper = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let keeper = rustix::net::sockopt::socket_peercred(&keeper).unwrap().pid.as_raw_nonzero();
    let errors = std::fs::read_link(format!("/proc/{keeper}/fd/2")).unwrap();
    assert_eq!(errors.to_str(), Some("/dev/null"), "a pipe behind `up` ends with `up`");
    let sealed = device.admin(&["seal"]);
    assert!(sealed.status.success(), "{sealed:?}");
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_err(), "sealed is sealed: the keeper is gone");
    device.kill();
    // Seven releases are left by count, and none after the close.
    device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
    device.kill_until_it_is_said(|line| line.contains("edgekeep is gone: tpm"));
    next_boot(&mut device, &mut tpm);
    device.up();
    assert_eq!(device.field("sensor", "secret/edgex/sensor/kept", "n"), "1");
    // So that nothing of this test stays behind.
    assert!(device.admin(&["seal"]).status.success());
}

/// The same with the descriptor store of a service manager in the place of the process: at one release in a boot, neither a crash nor a
/// restart needs a second one; and what is forgotten is gone from the manager too.
#[test]
fn a_service_manager_keeps_what_a_single_release_gave_over_crash_and_restart() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let mut device = Device::with_services(&["sensor"]);
    let source = format!("kind = \"tpm\"\ndevice = {:?}\npcrs = [7]\nreleases_per_boot = 1\n", tpm.socket());
    device.replace_section("source", &source);
    device.add("[release]\nafter_close = \"keeper\"\n");
    device.managed_by(ServiceManager::start(1));
    device.up();
    put(&device);
    let token = device.token("sensor");
    assert!(!device.run_dir().join("admin/keeper.sock").exists(), "no process is needed");
    for crash in [true, false] {
        if crash {
            device.kill();
        } else {
            assert_eq!(device.stop(), Some(0));
        }
        device.up();
        assert_eq!(device.token("sensor"), token, "the token of before");
        assert_eq!(device.field("sensor", "secret/edgex/sensor/kept", "n"), "1");
        assert_eq!(device.manager().kept().len(), 1);
    }
    // Whatever edgekeep starts has no hold of it: what was handed over is closed in children.
    let (mut seen, process) = (0, format!("/proc/{}", device.pid()));
    for entry in std::fs::read_dir(format!("{process}/fd")).unwrap().map(Result::unwrap) {
        if !std::fs::read_link(entry.path()).is_ok_and(|file| file.to_string_lossy().contains("secretmem")) {
            continue;
        }
        seen += 1;
        let number = entry.file_name().into_string().unwrap();
        let text = std::fs::read_to_string(format!("{process}/fdinfo/{number}")).unwrap();
        let flags = text.lines().find_map(|l| l.strip_prefix("flags:")).unwrap().trim();
        let on_exec = u32::from_str_radix(flags, 8).unwrap() & rustix::fs::OFlags::CLOEXEC.bits();
        assert!(on_exec != 0, "descriptor {number} is inherited by children");
    }
    assert!(seen >= 2, "the one at its place, and the one that is ours");
    let told = device.admin(&["doctor"]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains("a keeper has the key until the device restarts"), "{told:?}");
    let sealed = device.admin(&["seal"]);
    assert!(sealed.status.success(), "{sealed:?}");
    assert!(device.manager().kept().is_empty(), "sealed is sealed");
    device.kill();
    device.at_once = true;
    device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
    device.kill_until_it_is_said(|line| line.contains("edgekeep is gone: tpm"));
    // In another boot what is kept of this one is of no use, and is replaced.
    for _ in 0..2 {
        next_boot(&mut device, &mut tpm);
        device.up();
        assert_eq!(device.field("sensor", "secret/edgex/sensor/kept", "n"), "1");
        assert_eq!(device.manager().kept().len(), 1);
        device.kill();
    }
}

#[test]
fn without_a_keeper_a_closed_device_stays_sealed_until_its_next_boot() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let mut device = device(&tpm, "after_close = \"stay-sealed\"\n");
    device.up();
    put(&device);
    assert!(!device.run_dir().join("admin/keeper.sock").exists());
    device.kill();
    device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
    device.kill_until_it_is_said(|line| line.contains("edgekeep is gone: tpm"));
    next_boot(&mut device, &mut tpm);
    device.up();
    assert_eq!(device.field("sensor", "secret/edgex/sensor/kept", "n"), "1");
}

/// The guard as `up` starts it: it goes at a word, and closes the sources when the pipe ends or its time is over.
#[test]
fn a_guard_closes_the_tpm_when_nobody_tells_it_that_it_is_closed() {
    if is_skipped("swtpm") {
        return;
    }
    let mut tpm = Swtpm::start();
    tpm.extend(7, 0x77);
    let mut device = device(&tpm, "");
    device.up();
    assert_eq!(device.stop(), Some(0));
    // Releases are left, as the device shows each time that nothing has closed it.
    let guard = |within: &str| {
        let mut guard = Command::new(EDGEKEEP);
        guard.args(["guard", "--within", within, "--config"]).arg(device.config());
        guard.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut dismissed = guard("60");
    std::io::Write::write_all(&mut dismissed.stdin.take().unwrap(), b"d").unwrap();
    assert!(dismissed.wait().unwrap().success());
    let mut bereaved = guard("60");
    let mut late = guard("0");
    assert!(late.wait().unwrap().success());
    drop(bereaved.stdin.take());
    assert!(bereaved.wait().unwrap().success());
    device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
    device.kill();
    next_boot(&mut device, &mut tpm);
    device.up();
    assert_eq!(device.stop(), Some(0));
    let guard = Command::new(EDGEKEEP)
        .args(["guard", "--within", "60", "--config"])
        .arg(device.config())
        .stdin(Stdio::null())
        .status();
    assert!(guard.unwrap().success(), "an end of the pipe closes it by itself");
    device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
}
