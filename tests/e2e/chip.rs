//! A device and its TPM: a real one in software, which outlives the device's restarts as a chip does.

use testkit::{Swtpm, is_skipped};

use crate::device::Device;

/// A device with the service `sensor` whose key is in a TPM that has measured what [`boot`] calls 0x77 and 0xbb; `more`
/// stands in its `[source]`. `None` where TPMs are skipped by name.
pub(crate) fn device_with_tpm(more: &str) -> Option<(Swtpm, Device)> {
    if is_skipped("swtpm") {
        return None;
    }
    let tpm = Swtpm::start();
    measure(&tpm, 0x77, 0xbb);
    let device = Device::with_services(&["sensor"]);
    device.replace_section("source", &section(&tpm, more));
    Some((tpm, device))
}

/// The `[source]` of a TPM.
pub(crate) fn section(tpm: &Swtpm, more: &str) -> String {
    format!("kind = \"tpm\"\ndevice = {:?}\npcrs = [7, 11]\n{more}", tpm.socket())
}

/// What firmware and boot loader measure.
pub(crate) fn measure(tpm: &Swtpm, firmware: u8, kernel: u8) {
    tpm.extend(7, firmware);
    tpm.extend(11, kernel);
}

/// The next boot of the kernel, in which these are measured: another kernel of the same firmware is a vendor's update.
pub(crate) fn boot(tpm: &mut Swtpm, device: &mut Device, firmware: u8, kernel: u8) {
    device.reboot();
    tpm.reboot();
    measure(tpm, firmware, kernel);
}
