//! `login`: the certificate of the connection for a token, and later its renewal.

use std::collections::BTreeMap;

use api::PeerCertificates;
use pipeline::{Authorized, EngineError, Outcome, TokenEntry, TtlRules, Txn};

use super::admission::{Admitted, admit};
use super::config::Config;
use super::role::Role;
use crate::input::{Input, name};

pub(super) async fn login(request: &Authorized<'_>, txn: &mut Txn) -> Result<Outcome, EngineError> {
    let asked = Input::of(request.body())?.text("name")?.filter(|name| !name.is_empty());
    let shown = request.certificates().ok_or_else(nothing_shown)?;
    // A name that none can have is one that none has.
    let asked = asked.map(|asked| name(&asked).unwrap_or_default());
    let admitted = admit(shown, asked.as_deref(), txn).await?;
    let metadata = metadata(&admitted);
    let Admitted { role, name, .. } = admitted;
    Ok(Outcome::login(role.terms.into_grant(role.display_name, name, metadata)))
}

/// The rules of today for the token of a login: whoever asks shows the certificate of the login, the role lets it in
/// today, and a login would give the same policies.
pub(super) async fn renewal(
    token: &TokenEntry,
    by: Option<&PeerCertificates>,
    txn: &mut Txn,
) -> Result<TtlRules, EngineError> {
    let gone = || EngineError::bad_request("the role is gone, not renewing");
    let of_login = token.meta.as_ref().ok_or_else(gone)?;
    let role_name = of_login.get(ROLE).ok_or_else(gone)?;
    let role = if Config::load(txn).await?.disable_binding {
        Role::load(role_name, txn).await?.ok_or_else(gone)?
    } else {
        let shown = by.ok_or_else(nothing_shown)?;
        let admitted = admit(shown, Some(role_name), txn).await?;
        // Serial number and issuer name a certificate (RFC 5280, 4.1.2.2). OpenBao lets either key identifier do, and
        // the authority's is the same for all that it signed.
        if metadata(&admitted) != *of_login && host::in_force("renewals-bound-to-certificate") {
            return Err(EngineError::bad_request(
                "client identity during renewal not matching client identity used during login",
            ));
        }
        admitted.role
    };
    role.terms.renewal(token)
}

/// What a token says of the certificate; nobody can change it.
fn metadata(admitted: &Admitted) -> BTreeMap<String, String> {
    let Admitted { role_name, facts, name, .. } = admitted;
    BTreeMap::from([
        (ROLE.to_owned(), role_name.clone()),
        ("common_name".to_owned(), name.clone()),
        ("serial_number".to_owned(), facts.serial.clone()),
        ("subject_key_id".to_owned(), with_colons(&facts.subject_key_id)),
        ("authority_key_id".to_owned(), with_colons(&facts.authority_key_id)),
    ])
}

fn with_colons(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

fn nothing_shown() -> EngineError {
    EngineError::bad_request("no client certificate found")
}

const ROLE: &str = "cert_name";
