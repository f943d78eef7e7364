//! Which role lets a certificate in, at this moment.
//!
//! What costs least is asked first, and a list of revoked certificates only about one that an authority has vouched
//! for: a stranger's certificate costs a few comparisons of names, and at most as many signatures as its chain has.

use api::PeerCertificates;
use host::WallTime;
use pipeline::{EngineError, Txn};
use pki::peer::PeerFacts;
use rustls_pki_types::CertificateDer;

use super::crl;
use super::role::{self, Role};

/// A certificate that a role lets in: made by [`admit`] alone.
pub(super) struct Admitted {
    pub(super) role_name: String,
    pub(super) role: Role,
    pub(super) facts: PeerFacts,
    /// The common name, by which the mount knows the caller.
    pub(super) name: String,
}

/// The role of that name, or without a name the first that lets the certificate in, in the order of their names.
pub(super) async fn admit(
    certificates: &PeerCertificates,
    role: Option<&str>,
    txn: &mut Txn,
) -> Result<Admitted, EngineError> {
    let chain: Vec<CertificateDer<'_>> = certificates.chain().map(CertificateDer::from).collect();
    let facts = chain.iter().map(|der| PeerFacts::parse(der)).collect::<Result<Vec<_>, _>>();
    let facts = facts.map_err(|why| not_vouched().because(why))?;
    let leaf = facts.first().ok_or_else(not_vouched)?;
    let names = match role {
        Some(name) => vec![name.to_owned()],
        None => txn.list(role::FOLDER).await?,
    };
    let at = moment(txn);
    let mut reason = not_vouched().because(NO_ROLE);
    for role_name in names {
        let Some(role) = Role::load(&role_name, txn).await? else { continue };
        if let Err(why) = role.anchors()?.vouch_for(&chain, at) {
            // What one role says is not undone by what the next one says.
            if reason.logged() == NO_ROLE {
                reason = not_vouched().because(format_args!("role {role_name}: {why}"));
            }
            continue;
        }
        if !role.admits(leaf) {
            reason = no_match().because(format_args!("role {role_name}: no name of the certificate is allowed"));
            continue;
        }
        let serials: Vec<String> = facts.iter().map(|f| f.serial.clone()).collect();
        if crl::is_revoked(&serials, txn).await? {
            return Err(no_match().because("the certificate, or one that leads to its authority, is revoked"));
        }
        let name =
            leaf.common_name.clone().filter(|name| is_sound(name)).ok_or_else(|| {
                EngineError::bad_request("the certificate has no common name that an entity could have")
            })?;
        return Ok(Admitted { role_name, role, facts: leaf.clone(), name });
    }
    Err(reason)
}

/// By which clock a certificate's dates are judged: the later of the wall clock and the store's time, which never goes
/// back. A wall clock that lost its battery, or is set back, brings no certificate back to life whose time was over;
/// one that is ahead refuses too many and lets nobody in.
fn moment(txn: &Txn) -> WallTime {
    let stored = WallTime(i128::from(txn.now().0) * 1_000_000);
    if host::in_force("peer-dates-never-back") { txn.wall().max(stored) } else { txn.wall() }
}

/// An alias of an entity is a part of a path of the store.
fn is_sound(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains('/') && !name.contains(char::is_control)
}

fn not_vouched() -> EngineError {
    EngineError::bad_request("invalid certificate or no client certificate supplied")
}

fn no_match() -> EngineError {
    EngineError::bad_request("no chain matching all constraints could be found for this login certificate")
}

const NO_ROLE: &str = "no role";
const MAX_NAME_BYTES: usize = 256;
