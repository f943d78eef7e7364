//! `[source]`, or `[[source]]` several times: where the key material comes from. EdgeX's variables name the program
//! only where the file leaves it open.

use std::collections::BTreeMap;
use std::time::Duration;

use boot::plan::{Dangers, PinPlace, SourceSpec, TpmKeeping};
use seal::HandedPin;

use super::{combined, escrow, note_section, pkcs11, systemd, tang, tpm};
use crate::document::Value;
use crate::fault::{Place, shown};
use crate::places::{Part, Places};
use crate::section::{Section, parse_path};

pub(super) fn read(section: Section<'_>, places: &mut Places, dangers: &mut Dangers) -> Option<SourceSpec> {
    note_section(&section, "source", places);
    let place = section.place();
    let source = part(section, dangers);
    if let Some(source) = &source {
        places.note(Part::Source, source, place.clone());
        source.parts().iter().for_each(|part| places.note(Part::Source, part, place.clone()));
    }
    source
}

/// One source with all of its keys: a `[source]`, or a `[[source.part]]`.
pub(super) fn part(mut section: Section<'_>, dangers: &mut Dangers) -> Option<SourceSpec> {
    let Some(kind) = section.text("kind") else {
        let (place, remedy) =
            (section.place(), "set kind = \"exec\" in [source]; `edgekeep setup` shows what this device has");
        section.fault(&place, "no key source: [source] has no kind", remedy);
        return None;
    };
    let source = match kind.value.as_str() {
        "exec" => exec(&mut section, &kind.place, dangers),
        "software" => software(&mut section, &kind.place, dangers),
        "tpm" => tpm::read(&mut section, TpmKeeping::Sealed),
        "tpm-nv" => tpm::read(&mut section, TpmKeeping::Index),
        "tang" => tang::read(&mut section, &kind.place),
        "pkcs11" => pkcs11::read(&mut section, &kind.place),
        "credential" => systemd::read(&mut section, &kind.place),
        "escrow" => escrow::read(&mut section, &kind.place),
        "all" => combined::all(&mut section, dangers),
        "threshold" => combined::threshold(&mut section, &kind.place, dangers),
        other => {
            let remedy = "known are \"tpm\", \"tpm-nv\", \"pkcs11\", \"tang\", \"escrow\" (another machine keeps the key), \"credential\" \
                          (systemd's), \"all\" and \"threshold\" (of others), \"exec\" (a program that reads the hardware) and \
                          \"software\" (tests)";
            section.fault(&kind.place, format!("unknown kind {}", shown(other)), remedy);
            return None;
        }
    };
    section.finish(&[]);
    source
}

fn exec(section: &mut Section<'_>, kind_at: &Place, dangers: &mut Dangers) -> Option<SourceSpec> {
    dangers.short_ikm |= section.flag("danger_short_ikm").is_some_and(|f| f.value);
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
    dangers.software_key |= section.flag("danger_software_key").is_some_and(|f| f.value);
    let path = section.path("path");
    if path.is_none() && !section.has("path") {
        section.fault(kind_at, "the software source has no path", "set path = \"/absolute/key/file\"");
    }
    path.map(|p| SourceSpec::Software { file: p.value })
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

/// Where the PIN is: in a file, or on a descriptor that edgekeep is started with.
pub(super) fn pin(section: &mut Section<'_>) -> Option<PinPlace> {
    let file = section.path("pin_file");
    let descriptor = section.number("pin_fd", FIRST_DESCRIPTOR..=LAST_DESCRIPTOR);
    if let (Some(_), Some(fd)) = (&file, &descriptor) {
        section.fault(&fd.place, "pin_fd beside pin_file: there is one PIN", "take one of the two out");
    }
    let descriptor = descriptor.and_then(|fd| u16::try_from(fd.value).ok()).map(HandedPin::new);
    file.map(|p| PinPlace::File(p.value)).or(descriptor.map(PinPlace::Descriptor))
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
/// After standard input, output and error.
const FIRST_DESCRIPTOR: u64 = 3;
const LAST_DESCRIPTOR: u64 = 1023;
const MAX_DEADLINE: Duration = Duration::from_secs(120);
