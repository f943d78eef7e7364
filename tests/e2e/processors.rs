//! What one processor has made, another goes on with: the same disk and TPM, and the executable for that processor.
//!
//! It is the one that `EDGEKEEP_FOREIGN` names, as `cargo xtask release aarch64-unknown-linux-gnu --check` sets it, and
//! qemu runs it; without that, it is a second copy of the one under test.

use std::path::{Path, PathBuf};

use crate::chip::{boot, device_with_tpm};
use crate::device::EDGEKEEP;

/// A limited slot of a TPM: sealed on one, opened and counted on the other and its guard and keeper, and back.
#[test]
fn what_one_processor_has_sealed_another_opens() {
    if testkit::is_skipped("mounts") {
        return;
    }
    let Some((mut tpm, mut device)) = device_with_tpm("releases_per_boot = 3\n") else { return };
    device.add("[release]\nafter_close = \"keeper\"\n");
    let foreign = std::env::var_os("EDGEKEEP_FOREIGN").map_or_else(|| PathBuf::from(EDGEKEEP), PathBuf::from);
    let foreign = runnable(&foreign, device.dir());
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    for executable in [&foreign, Path::new(EDGEKEEP), &foreign] {
        boot(&mut tpm, &mut device, 0x77, 0xbb);
        device.runs(executable);
        device.up();
        assert_eq!(device.kept(), "1");
        // What keeps the key within this boot was started on that processor too.
        device.kill();
        device.up();
        assert_eq!(device.kept(), "1");
        assert!(device.admin(&["seal"]).status.success(), "so that nothing of this test stays behind");
        device.kill();
        device.stays_sealed("gives nothing more in this boot");
    }
}

/// The executable itself where this processor runs it, else a script in `dir` that has qemu run it and what it starts:
/// the kernel is told so in a namespace of its own, and this machine is as it was.
fn runnable(executable: &Path, dir: &Path) -> PathBuf {
    let header = std::fs::read(executable).unwrap();
    // System V gABI, e_machine.
    let machine = |elf: &[u8]| u16::from_le_bytes([elf[18], elf[19]]);
    let qemu = match machine(&header) {
        ours if ours == machine(&std::fs::read(EDGEKEEP).unwrap()) => return executable.to_owned(),
        0x28 => "qemu-arm-static",
        0xb7 => "qemu-aarch64-static",
        0xf3 => "qemu-riscv64-static",
        other => panic!("no qemu is known for the processor {other} of {}", executable.display()),
    };
    // Octets 7 to 15 are the name of the ABI, and padding.
    let octets = |octet: fn(usize, u8) -> u8| {
        header.iter().take(20).enumerate().map(|(at, b)| format!(r"\\x{:02x}", octet(at, *b))).collect::<String>()
    };
    let magic = octets(|at, b| if (7..16).contains(&at) { 0 } else { b });
    let mask = octets(|at, _| if (7..16).contains(&at) { 0 } else { 0xff });
    let script = format!(
        "#!/bin/sh\n\
         exec unshare --user --map-root-user --mount sh -ec '\n\
         mount -t binfmt_misc none /proc/sys/fs/binfmt_misc\n\
         printf %s \":foreign:M::{magic}:{mask}:/usr/bin/{qemu}:F\" >/proc/sys/fs/binfmt_misc/register\n\
         exec \"$0\" \"$@\"' {} \"$@\"\n",
        executable.display()
    );
    let file = dir.join("foreign");
    host::Disk::replace(&host::OsDisk, &file, script.as_bytes(), 0o755, None).unwrap();
    file
}
