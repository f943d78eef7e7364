//! `[source]`: where the key material comes from. EdgeX's variables name the program only where the file leaves it open.

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::time::Duration;

use boot::plan::{Dangers, SourceSpec, TpmSpec};
use seal::PcrSet;

use super::{note_section, pkcs11, tang};
use crate::document::Value;
use crate::fault::{Place, shown};
use crate::places::Places;
use crate::section::{Section, parse_path};

pub(super) fn read(mut section: Section<'_>, places: &mut Places, dangers: &mut Dangers) -> Option<SourceSpec> {
    note_section(&section, "source", places);
    let Some(kind) = section.text("kind") else {
        let (place, remedy) =
            (section.place(), "set kind = \"exec\" in [source]; `edgekeep setup` shows what this device has");
        section.fault(&place, "no key source: [source] has no kind", remedy);
        return None;
    };
    let source = match kind.value.as_str() {
        "exec" => exec(&mut section, &kind.place, dangers),
        "software" => software(&mut section, &kind.place, dangers),
        "tpm" => tpm(&mut section),
        "tang" => tang::read(&mut section, &kind.place),
        "pkcs11" => pkcs11::read(&mut section, &kind.place),
        other => {
            let remedy =
                "known are \"tpm\", \"pkcs11\", \"tang\", \"exec\" (a program that reads the hardware) and \"software\" (tests)";
            section.fault(&kind.place, format!("unknown kind {}", shown(other)), remedy);
            return None;
        }
    };
    section.finish(&[]);
    source
}

fn exec(section: &mut Section<'_>, kind_at: &Place, dangers: &mut Dangers) -> Option<SourceSpec> {
    dangers.short_ikm = section.flag("danger_short_ikm").is_some_and(|f| f.value);
    let deadline = deadline(section, DEADLINE, "10s is usual");
    let env = environment(section);
    let path = match section.path("path") {
        Some(path) => path.value,
        None if section.has("path") => return None,
        None => from_edgex(section, kind_at)?,
    };
    Some(SourceSpec::Exec { path, env, deadline })
}

fn software(section: &mut Section<'_>, kind_at: &Place, dangers: &mut Dangers) -> Option<SourceSpec> {
    dangers.software_key = section.flag("danger_software_key").is_some_and(|f| f.value);
    let path = section.path("path");
    if path.is_none() && !section.has("path") {
        section.fault(kind_at, "the software source has no path", "set path = \"/absolute/key/file\"");
    }
    path.map(|p| SourceSpec::Software { file: p.value })
}

fn tpm(section: &mut Section<'_>) -> Option<SourceSpec> {
    let device = section.path("device").map_or_else(|| DEVICE.into(), |p| p.value);
    let pcrs = match section.numbers("pcrs", 0..=23) {
        Some(list) => PcrSet::new(list.iter().map(|n| u8::try_from(n.value).unwrap_or(u8::MAX))).unwrap_or_default(),
        None => PcrSet::new(PCRS).unwrap_or_default(),
    };
    let gate_pcr = section.number("gate_pcr", 8..=15).map_or(GATE_PCR, |n| {
        if n.value == 10 {
            section.fault(
                &n.place,
                "gate_pcr = 10: the kernel extends it at any time (IMA)",
                "write 8 to 15; 13 is usual",
            );
        }
        u8::try_from(n.value).unwrap_or(GATE_PCR)
    });
    let releases_per_boot = section.number("releases_per_boot", 1..=8).and_then(|n| NonZeroU8::new(n.value as u8));
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
    let pin_file = section.path("pin_file").map(|p| p.value);
    let deadline = deadline(section, TPM_DEADLINE, "30s is usual");
    if pcrs.contains(gate_pcr) {
        let place = section.place();
        section.fault(
            &place,
            format!("PCR {gate_pcr} is in pcrs and is the gate"),
            "take it out of pcrs, or set another gate_pcr",
        );
    }
    Some(SourceSpec::Tpm(TpmSpec { device, pcrs, gate_pcr, releases_per_boot, window, pin_file, deadline }))
}

pub(super) fn deadline(section: &mut Section<'_>, usual: Duration, hint: &str) -> Duration {
    section.duration("deadline").map_or(usual, |d| {
        let deadline = d.value.as_duration();
        if !(Duration::from_secs(1)..=MAX_DEADLINE).contains(&deadline) {
            section.fault(
                &d.place,
                format!("deadline is {} s", deadline.as_secs()),
                format!("write 1s to 120s; {hint}"),
            );
        }
        deadline
    })
}

/// The hook's whole environment: nothing else is handed to it.
pub(super) fn environment(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let Some(entry) = section.named("env") else { return env };
    let place = section.source().at(entry.line);
    let Value::Map(entries) = &entry.node.value else {
        section.fault(&place, format!("env is {}", entry.node.value.kind()), "write env = { NAME = \"value\" }");
        return env;
    };
    for e in entries {
        let at = section.source().at(e.line);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if e.key.is_empty() || !e.key.chars().all(plain) || e.key.starts_with(|c: char| c.is_ascii_digit()) {
            section.fault(&at, format!("{} is no name of a variable", shown(&e.key)), "use letters, digits and _");
        } else if e.key.starts_with("LD_") {
            // The loader would run other code in the hook's name.
            section.fault(&at, format!("{} would change what the hook runs", e.key), "remove it");
        } else {
            match &e.node.value {
                Value::Text(text) if !text.contains('\0') => drop(env.insert(e.key.clone(), text.clone())),
                other => section.fault(&at, format!("{} is {}", e.key, other.kind()), "write text in quotes"),
            }
        }
    }
    env
}

fn from_edgex(section: &Section<'_>, kind_at: &Place) -> Option<std::path::PathBuf> {
    let environment = section.source().environment;
    let named = HOOKS.iter().find_map(|name| Some((*name, environment.value(name)?)).filter(|(_, v)| !v.is_empty()));
    let Some((name, value)) = named else {
        let remedy = "set path = \"/absolute/program\", or EDGEX_IKM_HOOK in the environment";
        section.fault(kind_at, "the exec source names no program", remedy);
        return None;
    };
    parse_path(value)
        .inspect_err(|e| {
            let place = Place::Variable(name.to_owned());
            section.fault(&place, format!("{}: {e}", shown(value)), "name the program by its absolute path");
        })
        .ok()
}

/// The newer name wins, as in EdgeX.
const HOOKS: [&str; 2] = ["EDGEX_IKM_HOOK", "IKM_HOOK"];
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// A TPM on a slow bus takes a second for a key and tens of milliseconds for the rest.
const TPM_DEADLINE: Duration = Duration::from_secs(30);
const MAX_DEADLINE: Duration = Duration::from_secs(120);
const DEVICE: &str = "/dev/tpmrm0";
/// Secure boot's state and certificates.
const PCRS: [u8; 1] = [7];
/// systemd-stub extends 11 to 13 before the system runs, shim 14, systemd 15 while it does.
const GATE_PCR: u8 = 13;
