//! Sources that are closed as soon as the store is open, and what a start in the same boot goes by then.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use testkit::{ServiceManager, Swtpm};

use crate::chip::{boot, device_with_tpm};
use crate::device::{Device, EDGEKEEP};
use crate::part;

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
    if testkit::is_skipped("mounts") {
        return;
    }
    let Some((mut tpm, mut device)) = device(8, "after_close = \"keeper\"\n") else { return };
    device.up();
    device.keep();
    crash_and_stop(&mut device);
    let socket = device.run_dir().join("admin/keeper.sock");
    // It stays connected, says nothing, and must not keep the keeper from forgetting.
    let silent = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let keeper = rustix::net::sockopt::socket_peercred(&silent).unwrap().pid.as_raw_nonzero();
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

/// A factory's first boot closes the TPM and leaves the key with a keeper, as `up` does: the first `up` opens by it.
#[test]
fn a_device_that_was_provisioned_is_closed_and_opens_in_the_same_boot_by_its_keeper() {
    if testkit::is_skipped("mounts") {
        return;
    }
    let Some((mut tpm, mut device)) = device(3, "after_close = \"keeper\"\n") else { return };
    let output = device.edgekeep().args(["provision", "--answers"]).arg(device.config()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    device.up();
    device.keep();
    assert!(device.admin(&["seal"]).status.success());
    device.kill();
    device.at_once = true;
    device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
    device.kill_until_it_is_said(|line| line.contains("edgekeep is gone: tpm"));
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
    assert!(device.admin(&["seal"]).status.success());
}

/// The same with the descriptor store of a service manager in the place of the process: at one release in a boot,
/// neither a crash nor a restart needs a second one; and what is forgotten is gone from the manager too.
#[test]
fn a_service_manager_keeps_what_a_single_release_gave_over_crash_and_restart() {
    if testkit::is_skipped("memfd-secret") || testkit::is_skipped("mounts") {
        return;
    }
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
    if testkit::is_skipped("mounts") {
        return;
    }
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

/// The TPM is late, and the device is restarted meanwhile, as by `systemctl restart`: the boot has its releases still.
#[test]
fn a_restart_while_the_device_waits_for_its_tpm_closes_nothing() {
    if testkit::is_skipped("mounts") {
        return;
    }
    let Some((mut tpm, mut device)) = device(8, "after_close = \"stay-sealed\"\n") else { return };
    let link = device.dir().join("tpm");
    std::os::unix::fs::symlink(tpm.socket(), &link).unwrap();
    device.set("device", &format!("{link:?}"));
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    for orderly in [true, false] {
        device.at_once = true;
        std::fs::remove_file(&link).unwrap();
        device.up_until_it_says(|line| line.contains("waits for its key source"));
        if orderly {
            assert_eq!(device.stop(), Some(0));
        } else {
            device.kill();
        }
        // It comes when edgekeep is gone: a guard that is left tries again until it can close it.
        std::os::unix::fs::symlink(tpm.socket(), &link).unwrap();
        let said = device.last_words();
        assert_eq!(said.contains("edgekeep is gone: tpm"), !orderly, "{said}");
        if orderly {
            device.up();
            assert_eq!(device.kept(), "1", "of eight releases none was used");
            assert_eq!(device.stop(), Some(0));
            boot(&mut tpm, &mut device, 0x77, 0xbb);
        }
    }
    device.stays_sealed("gives nothing more in this boot");
}

/// An upgrade puts another file in the place of the one that runs, and starts it: at a single release in a boot the new
/// one opens by what was kept of the old one's, and no service notices. Both kinds of keeper.
#[test]
fn an_upgrade_at_a_single_release_opens_by_what_is_kept() {
    if testkit::is_skipped("mounts") {
        return;
    }
    let manager = (!testkit::is_skipped("memfd-secret")).then(|| ServiceManager::start(1));
    for manager in [None, manager] {
        let Some((_tpm, mut device)) = device(1, "after_close = \"keeper\"\n") else { return };
        if let Some(manager) = manager {
            device.managed_by(manager);
        }
        device.install();
        device.up();
        device.keep();
        let token = device.token("sensor");
        let runs = |device: &Device| std::fs::read_link(format!("/proc/{}/exe", device.pid())).unwrap();
        let before = runs(&device);
        device.install();
        assert!(runs(&device).to_string_lossy().ends_with(" (deleted)"), "{:?}", runs(&device));
        assert_eq!(device.stop(), Some(0));
        device.up();
        assert_eq!(
            (runs(&device), device.token("sensor")),
            (before, token),
            "under the same name, and with the same tokens"
        );
        assert_eq!(device.kept(), "1");
        // And nothing else has opened it: there is no second release.
        assert!(device.admin(&["seal"]).status.success());
        device.kill();
        device.stays_sealed("gives nothing more in this boot");
    }
}

/// The TPM has released, and the store does not open: seven releases are left by count. The guard closes the TPM, and
/// whoever comes next in this boot, with the store whole again, gets nothing.
#[test]
fn a_guard_closes_the_tpm_behind_a_store_that_does_not_open() {
    if testkit::is_skipped("mounts") {
        return;
    }
    let Some((mut tpm, mut device)) = device(8, "after_close = \"stay-sealed\"\n") else { return };
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    let store = device.data_dir().join("data/store.db");
    let whole = std::fs::read(&store).unwrap();
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.write(&store, b"junk");
    device.at_once = true;
    device.up_until_it_says(|line| line.contains("edgekeep stays sealed"));
    part::until(|| device.ikm_status().contains("gives nothing more in this boot"), || device.ikm_status());
    device.kill();
    device.write(&store, &whole);
    device.stays_sealed("gives nothing more in this boot");
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
}

/// A device whose sources are closed asks its init for a restart, once it has run for ten minutes, and opens in the
/// boot that follows.
#[test]
fn a_device_that_nothing_opens_any_more_asks_its_init_for_a_restart() {
    if testkit::is_skipped("mounts") {
        return;
    }
    let Some((mut tpm, mut device)) = device(8, "after_close = \"reboot\"\n") else { return };
    device.up();
    device.keep();
    device.kill();
    device.at_once = true;
    let asks = |line: &str| line.contains("the device is restarted");
    let minutes = |n: u64| std::time::Duration::from_secs(60 * n);
    device.under_init(minutes(2), 7);
    let said = device.up_until_it_says(|line| line.contains("edgekeep stays sealed"));
    assert!(said.contains("gives nothing more in this boot"), "{said}");
    // It answers, and so has come to where it would ask.
    let mut list = Command::new(EDGEKEEP);
    list.args(["seal", "slots", "list", "--admin-socket"]).arg(device.run_dir().join("admin/admin.sock"));
    let told = list.output().unwrap();
    assert!(!told.status.success() && device.is_up(), "{told:?}");
    device.kill();
    device.under_init(minutes(20), 7);
    device.up_until_it_says(asks);
    part::until(|| !device.is_up(), || "init hears nothing".into());
    assert_eq!(device.ended(), "exit status: 7");
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
}

/// The guard as `up` starts it: it goes at a word, and closes the sources when the pipe ends or its time is over.
#[test]
fn a_guard_closes_the_tpm_when_nobody_tells_it_that_it_is_closed() {
    if testkit::is_skipped("mounts") {
        return;
    }
    let Some((mut tpm, mut device)) = device(8, "") else { return };
    device.up();
    assert_eq!(device.stop(), Some(0));
    // Releases are left, as the device shows each time that nothing has closed it.
    let guard = |device: &Device, within: &str| {
        let mut guard = Command::new(EDGEKEEP);
        guard.args(["guard", "--within", within, "--config"]).arg(device.config());
        // What it warns of belongs into no line of the tests' own.
        guard.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut dismissed = guard(&device, "60");
    std::io::Write::write_all(&mut dismissed.stdin.take().unwrap(), b"d").unwrap();
    assert!(dismissed.wait().unwrap().success());
    let mut bereaved = guard(&device, "60");
    // Nothing may be released before a word says so, and so no time runs.
    let mut waits = guard(&device, "0");
    for _ in 0..2 {
        std::io::Write::write_all(waits.stdin.as_mut().unwrap(), b"br").unwrap();
    }
    std::io::Write::write_all(&mut waits.stdin.take().unwrap(), b"rd").unwrap();
    assert!(waits.wait().unwrap().success());
    device.up();
    assert_eq!(device.stop(), Some(0));
    // Nor was anything released where it is said so, also when everybody is told to end in the same moment.
    for signal in [false, true] {
        let mut relieved = guard(&device, "60");
        if signal {
            // Before it is ready a signal ends it, as it does any process.
            let mut ready = String::new();
            BufReader::new(relieved.stdout.take().unwrap()).read_line(&mut ready).unwrap();
            assert_eq!(ready, "ready\n");
            part::must(Command::new("kill").arg(relieved.id().to_string()));
        }
        let last = if signal { &b"n"[..] } else { b"brn" };
        std::io::Write::write_all(&mut relieved.stdin.take().unwrap(), last).unwrap();
        assert!(relieved.wait().unwrap().success());
    }
    device.up();
    assert_eq!(device.stop(), Some(0));
    drop(bereaved.stdin.take());
    assert!(bereaved.wait().unwrap().success());
    device.stays_sealed("gives nothing more in this boot");
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.stop(), Some(0));
    let mut late = guard(&device, "0");
    std::io::Write::write_all(late.stdin.as_mut().unwrap(), b"b").unwrap();
    assert!(late.wait().unwrap().success());
    device.stays_sealed("gives nothing more in this boot");
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.stop(), Some(0));
    let mut doubted = guard(&device, "60");
    std::io::Write::write_all(&mut doubted.stdin.take().unwrap(), b"bn").unwrap();
    assert!(doubted.wait().unwrap().success());
    device.stays_sealed("gives nothing more in this boot");
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.stop(), Some(0));
    let guard = Command::new(EDGEKEEP)
        .args(["guard", "--within", "60", "--config"])
        .arg(device.config())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(guard.unwrap().success(), "an end of the pipe closes it by itself");
    device.up_until_it_says(|line| line.contains("gives nothing more in this boot"));
}
