//! `[source] kind = "tpm"` and `"tpm-nv"`: which TPM, and what the key is bound to when the store is made.

use std::num::NonZeroU8;
use std::time::Duration;

use boot::plan::{SourceSpec, TpmKeeping, TpmSpec};
use seal::{Counting, PcrSet, PcrSigning};

use super::source::{deadline, pin};
use crate::section::Section;

pub(super) fn read(section: &mut Section<'_>, keeping: TpmKeeping) -> Option<SourceSpec> {
    let device = section.path("device").map_or_else(|| DEVICE.into(), |p| p.value);
    let pcrs = match section.numbers("pcrs", 0..=23) {
        Some(list) => PcrSet::new(list.iter().map(|n| u8::try_from(n.value).unwrap_or(u8::MAX))).unwrap_or_default(),
        None => PcrSet::new(PCRS).unwrap_or_default(),
    };
    // An index is locked once it was read: there is no gate, and nothing to count.
    let (most, gate_pcr, counting) = match keeping {
        TpmKeeping::Index => (1, None, Counting::default()),
        TpmKeeping::Sealed => (8, Some(gate(section)), counting(section)),
    };
    let releases_per_boot = section.number("releases_per_boot", 1..=most).and_then(|n| NonZeroU8::new(n.value as u8));
    let window = section.duration("window").map(|d| {
        let window = d.value.as_duration();
        if !(Duration::from_secs(5)..=Duration::from_secs(3600)).contains(&window) {
            section.fault(
                &d.place,
                format!("window is {} s", window.as_secs()),
                "write 5s to 1h, from the device's start",
            );
        }
        window
    });
    let pin = pin(section);
    let deadline = deadline(section, DEADLINE, "30s is usual");
    let signing = signing(section);
    if let Some(gate_pcr) = gate_pcr.filter(|gate| pcrs.contains(*gate)) {
        let place = section.place();
        section.fault(
            &place,
            format!("PCR {gate_pcr} is in pcrs and is the gate"),
            "take it out of pcrs, or set another gate_pcr",
        );
    }
    let gate_pcr = gate_pcr.unwrap_or(GATE_PCR);
    Some(SourceSpec::Tpm(TpmSpec {
        device,
        keeping,
        pcrs,
        signing,
        gate_pcr,
        counting,
        releases_per_boot,
        window,
        pin,
        deadline,
    }))
}

fn gate(section: &mut Section<'_>) -> u8 {
    section.number("gate_pcr", 8..=15).map_or(GATE_PCR, |n| {
        if n.value == 10 {
            section.fault(
                &n.place,
                "gate_pcr = 10: the kernel extends it at any time (IMA)",
                "write 8 to 15; 13 is usual",
            );
        }
        u8::try_from(n.value).unwrap_or(GATE_PCR)
    })
}

fn counting(section: &mut Section<'_>) -> Counting {
    let remedy = "write \"any\" (an index where the TPM can), \"index\" or \"gate\"";
    let known = |text: &str| match text {
        "any" => Ok(Counting::Best),
        "index" => Ok(Counting::Index),
        "gate" => Ok(Counting::Gate),
        _ => Err("unknown"),
    };
    section.parsed("count_in", remedy, known).map_or_else(Counting::default, |c| c.value)
}

/// Signatures alone change nothing for new slots; slots that are bound to a key need them.
fn signing(section: &mut Section<'_>) -> PcrSigning {
    let usual = PcrSigning::default();
    PcrSigning {
        public_key: section.path("pcr_public_key").map(|p| p.value),
        signature: section.path("pcr_signature").map_or(usual.signature, |p| p.value),
    }
}

/// A TPM on a slow bus takes a second for a key and tens of milliseconds for the rest.
const DEADLINE: Duration = Duration::from_secs(30);
const DEVICE: &str = "/dev/tpmrm0";
/// Secure boot's state and certificates.
const PCRS: [u8; 1] = [7];
/// systemd-stub extends 11 to 13 before the system runs, shim 14, systemd 15 while it does.
const GATE_PCR: u8 = 13;
