//! `[source] kind = "escrow"`: who keeps the key, where, and how the device logs in there.

use boot::plan::SourceSpec;
use seal::{Address, Escrow, EscrowName, Hold, Identity, Login};

use super::source::{DEADLINE, deadline};
use crate::fault::{Place, shown};
use crate::section::Section;

pub(super) fn read(section: &mut Section<'_>, kind_at: &Place) -> Option<SourceSpec> {
    let deadline = deadline(section, DEADLINE, "10s is usual");
    let address =
        section.parsed("url", "write https://host:port; only TLS is spoken", |text| match Address::parse(text) {
            Ok(Address::Https { host, port }) => Ok((host, port)),
            Ok(_) => Err("it does not begin with https://".to_owned()),
            Err(e) => Err(e.to_string()),
        });
    let ca = section.path("ca");
    let server_name = section.text("server_name").map(|n| n.value);
    let (certificate, key) = (section.path("certificate"), section.path("certificate_key"));
    let login = section.text("login");
    let (login_mount, role) = (name(section, "login_mount"), name(section, "role"));
    let login_file = section.path("login_file").map(|p| p.value);
    let hold = section.text("hold");
    let (mount, key_name) = (name(section, "mount"), name(section, "name"));
    let version = section.number("kv_version", 1..=2).map_or(2, |n| if n.value == 1 { 1 } else { 2 });

    for (key, there, remedy) in [
        ("url", address.is_some(), "set url = \"https://holder:8200\""),
        (
            "ca",
            ca.is_some(),
            "set ca = \"/file.pem\": the certificate authority of the holder, which alone is believed",
        ),
        ("name", key_name.is_some(), "set name = \"...\": the device's key, as its policy there names it"),
    ] {
        if !there && !section.has(key) {
            section.fault(kind_at, format!("the escrow source has no {key}"), remedy);
        }
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Identity { certificate: certificate.value, key: key.value }),
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            let remedy = "set both certificate and certificate_key, or neither";
            section.fault(&one.place, "a certificate without its key, or a key without its certificate", remedy);
            None
        }
    };
    let login =
        login_of(section, kind_at, login, Wanted { mount: login_mount, role, file: login_file, identity: &identity });
    let hold = match hold.as_ref().map_or("transit", |h| h.value.as_str()) {
        "transit" => Hold::Transit { mount: mount.unwrap_or_else(|| usual("transit")), key: key_name? },
        "kv" => Hold::Kv { mount: mount.unwrap_or_else(|| usual("escrow")), path: key_name?, version },
        other => {
            let place = hold.as_ref().map_or(kind_at, |h| &h.place);
            section.fault(place, format!("unknown hold {}", shown(other)), "write \"transit\" or \"kv\"");
            return None;
        }
    };
    let (host, port) = address?.value;
    let holder = Box::new(Escrow { host, port, ca: ca?.value, server_name, identity, login: login?, hold });
    Some(SourceSpec::Escrow { holder, deadline })
}

struct Wanted<'a> {
    mount: Option<EscrowName>,
    role: Option<EscrowName>,
    file: Option<std::path::PathBuf>,
    identity: &'a Option<Identity>,
}

fn login_of(
    section: &Section<'_>,
    kind_at: &Place,
    login: Option<crate::section::Located<String>>,
    wanted: Wanted<'_>,
) -> Option<Login> {
    let (place, kind) = login.map_or((kind_at.clone(), "cert".to_owned()), |l| (l.place, l.value));
    let Wanted { mount, role, file, identity } = wanted;
    let needed = |what: &str, remedy: &str| section.fault(&place, format!("login by {kind} without {what}"), remedy);
    match kind.as_str() {
        "cert" => {
            if identity.is_none() {
                needed("a certificate", "set certificate and certificate_key to the device's own");
            }
            Some(Login::Certificate { mount: mount.unwrap_or_else(|| usual("cert")), role })
        }
        "approle" | "userpass" => {
            if role.is_none() {
                needed("role", "set role = \"...\" to the RoleID, or to the user's name");
            }
            if file.is_none() {
                needed("login_file", "set login_file = \"/file\" of mode 0600: the SecretID, or the password");
            }
            let mount = mount.unwrap_or_else(|| usual(&kind));
            Some(match kind.as_str() {
                "approle" => Login::AppRole { mount, role_id: role?, secret_id: file? },
                _ => Login::Userpass { mount, user: role?, password: file? },
            })
        }
        other => {
            let remedy = "write \"cert\", \"approle\" or \"userpass\"";
            section.fault(&place, format!("unknown login {}", shown(other)), remedy);
            None
        }
    }
}

fn name(section: &mut Section<'_>, key: &'static str) -> Option<EscrowName> {
    section.parsed(key, "copy it from the holder", str::parse::<EscrowName>).map(|n| n.value)
}

fn usual(text: &str) -> EscrowName {
    text.parse().expect("the usual names are names")
}
