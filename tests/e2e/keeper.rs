//! Sources that are closed as soon as the store is open, and what a start in the same boot goes by then.

use std::process::{Command, Stdio};

use testkit::{ServiceManager, Swtpm};

use crate::chip::{boot, device_with_tpm};
use crate::device::{Device, EDGEKEEP};

fn device(releases: u8, release: &str) -> Option<(Swtpm, Device)> {
    let (tpm, device) = device_with_tpm(&format!("releases_per_boot = {releases}\n"))?;
    device.add(&format!("[release]\n{release}"));
    Some((tpm, device))
}

/// A crash and a stop: each time the device opens again in the same boot, and its service does not notice.
fn crash_and_stop(device: &mut Device) {
    let token = device.token("sensor");
    for crash in [true, false] {
        if crash {
            device.kill();
        } else {
            assert_eq!(device.stop(), Some(0));
        }
        device.up();
        assert_eq!(device.token("sensor"), token, "the token of before");
        assert_eq!(device.kept(), "1");
    }
}

/// Crash, restart and a seal, in one boot and the next, of eight releases of which one is used.
#[test]
fn a_keeper_opens_what_the_closed_tpm_does_not_until_it_is_sealed() {
    let Some((mut tpm, mut device)) = device(8, "after_close = \"keeper\"\n") else { return };
    device.up();
    device.keep();
    crash_and_stop(&mut device);
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
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
    // So that nothing of this test stays behind.
    assert!(device.admin(&["seal"]).status.success());
}

/// The same with the descriptor store of a service manager in the place of the process: at one release in a boot, neither a crash nor a
/// restart needs a second one; and what is forgotten is gone from the manager too.
#[test]
fn a_service_manager_keeps_what_a_single_release_gave_over_crash_and_restart() {
    let Some((mut tpm, mut device)) = device(1, "after_close = \"keeper\"\n") else { return };
    device.managed_by(ServiceManager::start(1));
    device.up();
    device.keep();
    assert!(!device.run_dir().join("admin/keeper.sock").exists(), "no process is needed");
    crash_and_stop(&mut device);
    assert_eq!(device.manager().kept().len(), 1);
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
        boot(&mut tpm, &mut device, 0x77, 0xbb);
        device.up();
        assert_eq!(device.kept(), "1");
        assert_eq!(device.manager().kept().len(), 1);
        device.kill();
    }
}

#[test]
fn without_a_keeper_a_closed_device_stays_sealed_until_its_next_boot() {
    let Some((mut tpm, mut device)) = device(8, "after_close = \"stay-sealed\"\n") else { return };
    device.up();
    device.keep();
    assert!(!device.run_dir().join("admin/keeper.sock").exists());
    device.kill();
    device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
    device.kill_until_it_is_said(|line| line.contains("edgekeep is gone: tpm"));
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
}

/// The guard as `up` starts it: it goes at a word, and closes the sources when the pipe ends or its time is over.
#[test]
fn a_guard_closes_the_tpm_when_nobody_tells_it_that_it_is_closed() {
    let Some((mut tpm, mut device)) = device(8, "") else { return };
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
    device.stays_sealed("gives nothing more in this boot");
    boot(&mut tpm, &mut device, 0x77, 0xbb);
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
