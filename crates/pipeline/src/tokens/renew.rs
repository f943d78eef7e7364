//! How long a token lives: pure arithmetic, and the renewal that applies it.

use std::time::Duration;

use api::Ttl;

use super::Tokens;
use super::entry::{TokenEntry, TokenId};
use crate::error::EngineError;
use crate::mounts::MountEntry;
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
    /// The limit of mount and user; periodic tokens may pass it in all, but not in one step.
    pub max_ttl: Ttl,
}

impl TtlRules {
    /// The same, with what the mount says where there was no rule, and never beyond its maximum.
    #[must_use]
    pub fn within(self, mount: &MountEntry) -> Self {
        let default = Ttl::seconds(mount.default_ttl_seconds());
        let default_ttl = if self.default_ttl.is_zero() { default } else { self.default_ttl };
        Self { default_ttl, max_ttl: Ttl::seconds(mount.max_ttl_seconds()).or_less(self.max_ttl), ..self }
    }

    /// As a token was made or last renewed.
    pub(crate) fn of(entry: &TokenEntry) -> Self {
        let TokenEntry { period, explicit_max_ttl, creation_ttl, max_ttl, .. } = *entry;
        let [period, explicit_max_ttl, default_ttl, max_ttl] =
            [period, explicit_max_ttl, creation_ttl, max_ttl].map(Ttl::seconds);
        Self { period, explicit_max_ttl, default_ttl, max_ttl }
    }

    /// The time of a new token, and a warning for each thing that was made smaller.
    pub fn at_creation(&self, asked: Ttl) -> (Ttl, Vec<String>) {
        let wanted = [self.period, asked, self.default_ttl].into_iter().find(|t| !t.is_zero()).unwrap_or(self.max_ttl);
        self.capped(wanted, self.max_ttl.or_less(self.explicit_max_ttl))
    }

    /// The time that a renewal gives a token of this age, and a warning if it was made smaller; `None` for one that is
    /// past what it may live. One step is never longer than the maximum; only a periodic token may pass that in all.
    pub fn at_renewal(&self, asked: Ttl, age: Duration) -> Option<(Ttl, Vec<String>)> {
        let wanted = [self.period, asked, self.default_ttl].into_iter().find(|t| !t.is_zero()).unwrap_or(self.max_ttl);
        let whole =
            if self.period.is_zero() { self.max_ttl.or_less(self.explicit_max_ttl) } else { self.explicit_max_ttl };
        if whole.is_zero() {
            return Some(self.capped(wanted, self.max_ttl));
        }
        let left = Ttl::seconds(whole.as_duration().saturating_sub(age).as_secs());
        (!left.is_zero()).then(|| self.capped(wanted, self.max_ttl.or_less(left)))
    }

    /// `limit` of zero is none.
    fn capped(&self, wanted: Ttl, limit: Ttl) -> (Ttl, Vec<String>) {
        let ttl = wanted.or_less(limit);
        let what = if self.period.is_zero() { "TTL" } else { "period" };
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
    /// Renews a token by the rules of today. Seldom a write: see the module's text.
    ///
    /// # Errors
    /// 400 for a token that cannot be renewed, is past what it may live, or is not there.
    pub(crate) async fn renew(
        &self,
        id: TokenId,
        increment: Ttl,
        rules: TtlRules,
        txn: &mut Txn,
    ) -> Result<Renewed, EngineError> {
        let live = self.live(id).await?.ok_or_else(|| EngineError::bad_request("token not found"))?;
        let mut entry = live.entry().clone();
        let Some(_) = live.expires().filter(|_| entry.renewable) else {
            return Err(EngineError::bad_request("lease is not renewable"));
        };
        let (now, wall) = (self.now(), txn.wall());
        // It lives on to the end that it has: what was promised is not taken back by asking for more.
        let past = || EngineError::bad_request("past the max TTL, cannot renew");
        let (ttl, warnings) = rules.at_renewal(increment, entry.issued().until(now)).ok_or_else(past)?;
        let end = now.plus(ttl.as_duration()).0;
        entry.expires_ms = Some(end);
        entry.renewed_wall = Some(wall.0);
        // What is written of the rules bounds the head room, so that a crash gives nothing that they do not.
        let same_rules = entry.take(&rules);
        if same_rules && entry.keep_until_ms.is_some_and(|keep| end <= keep) {
            // Already durable: a crash from here on keeps the token alive until `keep_until`, which is not before
            // `end`.
            self.note(id, &entry, end, wall.0);
            live.renewed(end, wall.0);
        } else {
            let ahead = ttl.as_seconds();
            entry.written_ms = now.0;
            entry.renewals = self.next_renewal(id, &entry);
            entry.life = self.life();
            set_head_room(&mut entry, ahead);
            txn.require(id.path(), Some(live.version()));
            txn.put_at(id.path(), entry.encode());
        }
        Ok(Renewed { entry, ttl, warnings })
    }
}

/// Sets how far renewals may go without a write: one TTL ahead, 24 h at most, never past the hard end; nothing for what
/// cannot be renewed.
pub(super) fn set_head_room(entry: &mut TokenEntry, ttl_seconds: u64) {
    let room = if entry.renewable { ttl_seconds.min(MAX_HEAD_ROOM_SECONDS) * 1000 } else { 0 };
    let hard_end = entry.hard_end_ms().unwrap_or(u64::MAX);
    entry.keep_until_ms = entry.expires_ms.map(|end| end.saturating_add(room).min(hard_end).max(end));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn renewed(rules: [u64; 4], asked: u64, age: u64) -> Option<u64> {
        let [period, explicit_max_ttl, default_ttl, max_ttl] = rules.map(Ttl::seconds);
        let rules = TtlRules { period, explicit_max_ttl, default_ttl, max_ttl };
        rules.at_renewal(Ttl::seconds(asked), Duration::from_secs(age)).map(|(ttl, _)| ttl.as_seconds())
    }

    #[test]
    fn no_renewal_passes_a_limit() {
        // Period, explicit maximum, default, maximum; asked, age; given.
        for (rules, asked, age, given) in [
            ([0, 0, 60, 100], 0, 0, Some(60)),
            ([0, 0, 60, 100], 500, 0, Some(100)),
            ([0, 0, 60, 100], 500, 90, Some(10)),
            ([0, 0, 60, 100], 1, 100, None),
            ([0, 0, 60, 0], 500, 1000, Some(500)),
            ([0, 80, 60, 100], 500, 0, Some(80)),
            ([50, 0, 60, 100], 500, 1000, Some(50)),
            ([500, 0, 60, 100], 0, 1000, Some(100)),
            ([500, 1010, 60, 100], 0, 1000, Some(10)),
            ([500, 1000, 60, 100], 0, 1000, None),
        ] {
            assert_eq!(renewed(rules, asked, age), given, "{rules:?} {asked} {age}");
        }
    }
}
