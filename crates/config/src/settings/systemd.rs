//! `[source] kind = "credential"`: key material that systemd decrypts for the unit.

use std::path::PathBuf;

use boot::plan::SourceSpec;
use seal::{CredentialForm, CredentialName};

use crate::fault::{Place, shown};
use crate::section::{Section, parse_path};

pub(super) fn read(section: &mut Section<'_>, kind_at: &Place) -> Option<SourceSpec> {
    let remedy = "write the name that stands in the unit: LoadCredentialEncrypted=NAME:FILE";
    let name = section.parsed("name", remedy, str::parse::<CredentialName>);
    if name.is_none() && !section.has("name") {
        section.fault(kind_at, "the credential source has no name", "set name = \"...\" as in the unit");
    }
    let form = section.parsed("form", "write \"raw\" or \"hex\"", |text| match text {
        "raw" => Ok(CredentialForm::Raw),
        "hex" => Ok(CredentialForm::Hex),
        other => Err(format!("unknown form {}", shown(other))),
    });
    let directory = section.path("directory").map(|p| p.value).unwrap_or_else(|| from_systemd(section));
    let form = form.map_or(CredentialForm::Raw, |f| f.value);
    Some(SourceSpec::Credential { directory, name: name?.value, form })
}

/// Where systemd has put it; without its word, where it puts a unit's of our name.
fn from_systemd(section: &Section<'_>) -> PathBuf {
    let named = section.source().environment.value("CREDENTIALS_DIRECTORY").and_then(|dir| parse_path(dir).ok());
    named.unwrap_or_else(|| DIRECTORY.into())
}

const DIRECTORY: &str = "/run/credentials/edgekeep.service";
