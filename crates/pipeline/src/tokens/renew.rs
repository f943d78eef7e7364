//! How long a token lives: pure arithmetic, and the renewal that applies it.

use api::Ttl;

use super::Tokens;
use super::entry::{TokenEntry, TokenId};
use crate::error::EngineError;
use crate::txn::Txn;

/// What decides about a token's time. Zero means "no rule".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TtlRules {
    /// Each renewal of a periodic token.
    pub period: Ttl,
    /// A limit for all tokens, periodic ones too.
    pub explicit_max_ttl: Ttl,
    /// Where nothing is asked for.
    pub default_ttl: Ttl,
    /// The limit of mount and role; periodic tokens may pass it in all, but not in one step.
    pub max_ttl: Ttl,
}

impl TtlRules {
    /// The time of a new token, and a warning for each thing that was made smaller.
    pub fn at_creation(&self, asked: Ttl) -> (Ttl, Vec<String>) {
        let wanted = [self.period, asked, self.default_ttl].into_iter().find(|t| !t.is_zero()).unwrap_or(self.max_ttl);
        let what = if self.period.is_zero() { "TTL" } else { "period" };
        let explicit = capped(self.explicit_max_ttl, self.max_ttl);
        let limit = if explicit.is_zero() { self.max_ttl } else { explicit };
        let ttl = capped(wanted, limit);
        let warnings = if ttl < wanted { vec![too_long(what, wanted, limit)] } else { Vec::new() };
        (ttl, warnings)
    }
}

/// A renewed token.
#[derive(Debug)]
pub struct Renewed {
    /// As it is now.
    pub entry: TokenEntry,
    /// Seconds left.
    pub ttl: Ttl,
    /// What was made smaller than asked.
    pub warnings: Vec<String>,
}

impl Tokens {
    /// Renews a token. Seldom a write: see the module's text.
    ///
    /// # Errors
    /// 400 for a token that cannot be renewed; 403 for one that is not there.
    pub async fn renew(&self, id: TokenId, increment: Ttl, txn: &mut Txn) -> Result<Renewed, EngineError> {
        let live = self.live(id).await?.ok_or_else(|| EngineError::bad_request("token not found"))?;
        let mut entry = live.entry().clone();
        let Some(_) = live.expires().filter(|_| entry.renewable) else {
            return Err(EngineError::bad_request("lease is not renewable"));
        };
        let (now, wall) = (self.now(), txn.wall());
        let (ttl, warnings) = next_ttl(&entry, now.0, increment);
        let end = now.plus(ttl.as_duration()).0;
        entry.expires_ms = Some(end);
        entry.renewed_wall = Some(wall.0);
        if entry.keep_until_ms.is_some_and(|keep| end <= keep) {
            // Already durable: a crash from here on keeps the token alive until `keep_until`, which is not before `end`.
            self.note(id, end, wall.0);
            live.renewed(end, wall.0);
        } else {
            let ahead = ttl.as_seconds();
            entry.written_ms = now.0;
            entry.life = self.life();
            set_head_room(&mut entry, ahead);
            txn.require(id.path(), Some(live.version()));
            txn.put_at(id.path(), entry.encode());
        }
        Ok(Renewed { entry, ttl, warnings })
    }
}

/// The time that a renewal at `now_ms` gives.
fn next_ttl(entry: &TokenEntry, now_ms: u64, increment: Ttl) -> (Ttl, Vec<String>) {
    let default = Ttl::seconds(entry.creation_ttl);
    let wanted = if entry.period > 0 {
        Ttl::seconds(entry.period)
    } else if increment.is_zero() {
        default
    } else {
        increment
    };
    match entry.hard_end_ms() {
        None => (wanted, Vec::new()),
        Some(end) => {
            let left = Ttl::seconds(end.saturating_sub(now_ms) / 1000);
            if wanted > left { (left, vec![too_long("TTL", wanted, left)]) } else { (wanted, Vec::new()) }
        }
    }
}

/// Sets how far renewals may go without a write: one TTL ahead, 24 h at most, never past the hard end; nothing for what
/// cannot be renewed.
pub(super) fn set_head_room(entry: &mut TokenEntry, ttl_seconds: u64) {
    let room = if entry.renewable { ttl_seconds.min(MAX_HEAD_ROOM_SECONDS) * 1000 } else { 0 };
    let hard_end = entry.hard_end_ms().unwrap_or(u64::MAX);
    entry.keep_until_ms = entry.expires_ms.map(|end| end.saturating_add(room).min(hard_end).max(end));
}

/// `limit` of zero is none.
fn capped(wanted: Ttl, limit: Ttl) -> Ttl {
    if limit.is_zero() { wanted } else { wanted.min(limit) }
}

fn too_long(what: &str, wanted: Ttl, limit: Ttl) -> String {
    format!(
        "{what} of \"{}\" exceeded the effective max_ttl of \"{}\"; {what} value is capped accordingly",
        short(wanted),
        short(limit)
    )
}

/// As OpenBao writes a time in warnings: `1h`, `10s`, `1h30m`.
fn short(ttl: Ttl) -> String {
    let text = ttl.to_go();
    let text = text.strip_suffix("m0s").map_or(text.clone(), |t| format!("{t}m"));
    text.strip_suffix("h0m").map_or(text.clone(), |t| format!("{t}h"))
}

const MAX_HEAD_ROOM_SECONDS: u64 = 24 * 3600;
