//! `[store]`: a Vault or OpenBao in place of our own store. Without the section, or without `external`, the store is
//! ours.

use std::path::PathBuf;

use boot::plan::{Access, ExternalStore, Reunseal, ShareCounts, StoreSpec, Terms};
use client::Address;

use super::listen::is_server_name;
use super::note_section;
use crate::fault::{Place, shown};
use crate::places::Places;
use crate::section::{Located, Section};

pub(super) fn read(mut section: Section<'_>, places: &mut Places) -> StoreSpec {
    note_section(&section, "store", places);
    let address = section.text("external");
    let keys = Keys::read(&mut section);
    let Some(address) = address else {
        if let Some(place) = keys.first() {
            section.fault(
                &place,
                "[store] names no store",
                "set external = \"https://host:8200\", or remove the section",
            );
        }
        section.finish(&[]);
        return StoreSpec::Ours;
    };
    let found = host_and_port(&section, &address);
    let terms = keys.terms(&section, &address.place);
    if keys.ca.is_none() && !section.has("ca") {
        let remedy = "set ca = \"/absolute/file.pem\": the CA of its certificate, and no other, is believed";
        section.fault(&address.place, "[store] names no CA", remedy);
    }
    let server_name = keys.server_name.map(|n| n.value);
    section.finish(&[]);
    match (found, keys.ca, terms) {
        (Some((host, port)), Some(ca), Some(terms)) => {
            StoreSpec::External(ExternalStore { host, port, ca: ca.value, server_name, terms })
        }
        // Never carried out: what is missing was noted as a fault. The rest is judged as what was meant.
        (found, ca, terms) => {
            let (host, port) = found.unwrap_or_default();
            let ca = ca.map(|c| c.value).unwrap_or_default();
            let terms = terms.unwrap_or_else(|| Terms::Guest(Access::TokenFile(PathBuf::new())));
            StoreSpec::External(ExternalStore { host, port, ca, server_name, terms })
        }
    }
}

/// Sections that say nothing where the store is somebody else's.
pub(super) fn without_effect(store: &StoreSpec, sections: &[(&'static str, bool, Place)], section: &Section<'_>) {
    let Some(external) = store.external() else { return };
    for (name, written, place) in sections {
        let of_slots = matches!(*name, "source" | "recovery");
        if *written && !(of_slots && external.is_kept()) {
            let remedy = if of_slots { "remove it, or set owned = true in [store]" } else { "remove it" };
            section.fault(place, format!("[{name}] has no effect: the store is not in this process"), remedy);
        }
    }
}

struct Keys {
    ca: Option<Located<PathBuf>>,
    server_name: Option<Located<String>>,
    token_file: Option<Located<PathBuf>>,
    approle: Option<(Option<Access>, Place)>,
    owned: Option<Located<bool>>,
    reunseal: Option<Located<Reunseal>>,
    shares: Option<Located<u64>>,
    threshold: Option<Located<u64>>,
}

impl Keys {
    fn read(section: &mut Section<'_>) -> Self {
        let name = |text: &str| {
            if is_server_name(text) { Ok(text.to_owned()) } else { Err("it is neither a host name nor an address") }
        };
        let reunseal = |text: &str| match text {
            "always" => Ok(Reunseal::Always),
            "once-per-boot" => Ok(Reunseal::OncePerBoot),
            _ => Err("it is no such choice"),
        };
        Self {
            ca: section.path("ca"),
            server_name: section.parsed("server_name", "write the name that its certificate has", name),
            token_file: section.path("token_file"),
            approle: approle(section),
            owned: section.flag("owned"),
            reunseal: section.parsed("reunseal", "write \"always\" or \"once-per-boot\"", reunseal),
            shares: section.number("shares", 1..=255),
            threshold: section.number("threshold", 1..=255),
        }
    }

    /// Where the first of them stands, if there is one.
    fn first(&self) -> Option<Place> {
        let places = [
            self.ca.as_ref().map(|l| &l.place),
            self.server_name.as_ref().map(|l| &l.place),
            self.token_file.as_ref().map(|l| &l.place),
            self.approle.as_ref().map(|(_, place)| place),
            self.owned.as_ref().map(|l| &l.place),
            self.reunseal.as_ref().map(|l| &l.place),
            self.shares.as_ref().map(|l| &l.place),
            self.threshold.as_ref().map(|l| &l.place),
        ];
        places.into_iter().flatten().next().cloned()
    }

    fn terms(&self, section: &Section<'_>, store_at: &Place) -> Option<Terms> {
        if self.owned.as_ref().is_some_and(|o| o.value) {
            let logins = [self.token_file.as_ref().map(|t| &t.place), self.approle.as_ref().map(|(_, place)| place)];
            for place in logins.into_iter().flatten() {
                let remedy = "remove it: whoever keeps the store makes his own token there";
                section.fault(place, "a login to a store that is owned", remedy);
            }
            let counts = self.counts(section);
            return Some(Terms::Owner {
                counts,
                reunseal: self.reunseal.as_ref().map(|r| r.value).unwrap_or_default(),
            });
        }
        for (key, place) in [
            ("reunseal", self.reunseal.as_ref().map(|l| &l.place)),
            ("shares", self.shares.as_ref().map(|l| &l.place)),
            ("threshold", self.threshold.as_ref().map(|l| &l.place)),
        ] {
            if let Some(place) = place {
                let remedy = "remove it; or set owned = true: edgekeep then makes and unseals the store";
                section.fault(place, format!("{key} says nothing about a store that somebody else unseals"), remedy);
            }
        }
        match (&self.token_file, &self.approle) {
            (Some(file), None) => Some(Terms::Guest(Access::TokenFile(file.value.clone()))),
            (None, Some((access, _))) => access.clone().map(Terms::Guest),
            (Some(_), Some((_, place))) => {
                section.fault(
                    place,
                    "two ways to log in to the store",
                    "keep token_file or approle, and remove the other",
                );
                None
            }
            (None, None) => {
                let remedy = "set token_file = \"/absolute/file\", or approle = { role_id = \"...\", secret_id_file = \
                    \"/absolute/file\" }; or owned = true: edgekeep then makes and unseals the store";
                section.fault(store_at, "[store] names no way to log in", remedy);
                None
            }
        }
    }

    fn counts(&self, section: &Section<'_>) -> ShareCounts {
        let count = |l: &Option<Located<u64>>, usual: u8| {
            l.as_ref().map_or(usual, |l| u8::try_from(l.value).unwrap_or(u8::MAX))
        };
        let counts = ShareCounts { shares: count(&self.shares, 5), threshold: count(&self.threshold, 3) };
        // Vault's own rule: with several shares, one alone must not open it.
        let fits = counts.threshold <= counts.shares && (counts.threshold > 1 || counts.shares == 1);
        if let Some(place) = [&self.threshold, &self.shares].into_iter().flatten().next().map(|l| &l.place)
            && !fits
        {
            let what = format!("{} of {} key shares", counts.threshold, counts.shares);
            section.fault(place, what, "write threshold = 2 up to the number of shares; or shares = 1, threshold = 1");
        }
        counts
    }
}

fn host_and_port(section: &Section<'_>, address: &Located<String>) -> Option<(String, u16)> {
    let remedy = "write https://host:port";
    match Address::parse(&address.value) {
        Ok(Address::Https { host, port }) => return Some((host, port)),
        Ok(_) => {
            let what = format!("external = {}: every token would cross it in clear", shown(&address.value));
            section.fault(&address.place, what, remedy);
        }
        Err(e) => {
            section.fault(&address.place, format!("external = {}: {}", shown(&address.value), e.problem), remedy);
        }
    }
    None
}

fn approle(section: &mut Section<'_>) -> Option<(Option<Access>, Place)> {
    let mut role = section.table("approle");
    let place = role.place();
    let (role_id, mount) = (role.text("role_id"), role.text("mount"));
    let secret_id_file = role.path("secret_id_file");
    let written = [role_id.is_some(), mount.is_some(), secret_id_file.is_some(), role.is_written()];
    if !written.contains(&true) {
        role.finish(&[]);
        return None;
    }
    for (key, missing) in [("role_id", role_id.is_none()), ("secret_id_file", secret_id_file.is_none())] {
        if missing && !role.has(key) {
            role.fault(&place, format!("an approle without {key}"), format!("set {key} = \"...\""));
        }
    }
    let plain = |text: &str| {
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        !text.is_empty() && text.chars().all(sound) && !text.split('/').any(|s| matches!(s, "" | "." | ".."))
    };
    for (key, value) in [("role_id", &role_id), ("mount", &mount)] {
        if let Some(value) = value.as_ref().filter(|v| !plain(&v.value)) {
            let what = format!("{key} = {} has characters that none has", shown(&value.value));
            role.fault(&value.place, what, "write it as the store shows it");
        }
    }
    role.finish(&[]);
    let access = role_id.zip(secret_id_file).map(|(role_id, file)| Access::AppRole {
        mount: mount.map_or_else(|| "approle".to_owned(), |m| m.value),
        role_id: role_id.value,
        secret_id_file: file.value,
    });
    Some((access, place))
}
