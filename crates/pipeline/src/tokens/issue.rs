//! Making a token.

use std::collections::BTreeMap;

use api::{Auth, Ttl};
use secret::{Accessor, SecretBytes, Token};

use super::entry::{self, TokenEntry, TokenId};
use super::renew::{self, TtlRules};
use super::{MAX_DEPTH, Tokens};
use crate::error::EngineError;
use crate::txn::Txn;

/// A token to be made. Who may ask for what is decided before.
#[derive(Debug, Default)]
pub struct NewToken {
    /// The token itself, where the caller chose one.
    pub chosen: Option<Token>,
    /// Its parent; `None` for an orphan.
    pub parent: Option<TokenId>,
    /// Its policies, as they are to be kept.
    pub policies: Vec<String>,
    /// The request path that makes it.
    pub path: String,
    /// For people.
    pub display_name: String,
    /// Metadata.
    pub meta: Option<BTreeMap<String, String>>,
    /// The entity behind it, or empty.
    pub entity_id: String,
    /// Accessor of the auth mount of a login.
    pub mount: Option<String>,
    /// The role that it is made by.
    pub role: Option<String>,
    /// Uses; zero for no limit.
    pub num_uses: u64,
    /// Whether it may be renewed.
    pub renewable: bool,
    /// What decides about its time.
    pub rules: TtlRules,
    /// What the caller asks for; zero for the default.
    pub ttl: Ttl,
    /// Never ends: for root tokens alone.
    pub for_ever: bool,
    /// Good for this kernel boot alone.
    pub this_boot_only: bool,
}

/// A token that exists once the transaction commits.
#[derive(Debug)]
pub struct Issued {
    /// The token. It is nowhere else.
    pub token: Token,
    /// Its entry.
    pub entry: TokenEntry,
    /// What was made smaller than asked.
    pub warnings: Vec<String>,
}

impl Tokens {
    /// Makes a token in `txn`.
    ///
    /// # Errors
    /// 400 for a chosen token that exists, or one that would be too deep in the tree.
    pub async fn create(&self, new: NewToken, txn: &mut Txn) -> Result<Issued, EngineError> {
        let token = new.chosen.unwrap_or_else(|| Token::generate(&mut |out| txn.fill(out)));
        let id = self.id(&token);
        if txn.get_at(&id.path()).await?.is_some() {
            return Err(EngineError::bad_request("cannot create a token with a duplicate ID"));
        }
        if let Some(parent) = new.parent {
            match self.live(parent).await? {
                None => return Err(EngineError::bad_request("parent token lookup failed: no parent found")),
                Some(live) if live.depth() + 2 > MAX_DEPTH => {
                    let told = format!("a token may have at most {} ancestors", MAX_DEPTH - 1);
                    return Err(EngineError::bad_request(told));
                }
                Some(_) => {}
            }
        }
        let (now, wall) = (self.now(), txn.wall());
        let (ttl, warnings) = new.rules.at_creation(new.ttl);
        let mut made = TokenEntry {
            accessor: Accessor::generate(&mut |out| txn.fill(out)).as_str().to_owned(),
            parent: new.parent,
            policies: new.policies,
            path: new.path,
            display_name: new.display_name,
            meta: new.meta,
            entity_id: new.entity_id,
            mount: new.mount,
            role: new.role,
            uses_left: (new.num_uses > 0).then_some(new.num_uses),
            renewable: new.renewable && !new.for_ever,
            creation_ttl: if new.for_ever { 0 } else { ttl.as_seconds() },
            period: new.rules.period.as_seconds(),
            explicit_max_ttl: new.rules.explicit_max_ttl.as_seconds(),
            max_ttl: if new.for_ever { 0 } else { new.rules.max_ttl.as_seconds() },
            issued_ms: now.0,
            issued_wall: wall.0,
            expires_ms: (!new.for_ever).then(|| now.plus(ttl.as_duration()).0),
            keep_until_ms: None,
            written_ms: now.0,
            renewals: 0,
            life: self.life(),
            renewed_wall: None,
            boot: new.this_boot_only.then(|| self.boot_id.clone()),
        };
        renew::set_head_room(&mut made, ttl.as_seconds());
        // One commit: a token without its accessor could not be revoked by who lost it, and one without its place in
        // the tree would be missed when the tree is counted.
        let code = SecretBytes::new(hex::encode(id.0).into_bytes());
        txn.put_at(entry::accessor_path(&made.accessor), code);
        if let Some(parent) = made.parent {
            txn.put_at(parent.child(id), SecretBytes::new(b"1".to_vec()));
        }
        txn.put_at(id.path(), made.encode());
        Ok(Issued { token, entry: made, warnings })
    }
}

impl Issued {
    /// The `auth` block of the reply.
    pub fn into_auth(self, identity_policies: Vec<String>) -> (Auth, Vec<String>) {
        let Self { token, entry, warnings } = self;
        let mut policies: Vec<String> = entry.policies.iter().chain(&identity_policies).cloned().collect();
        policies.sort();
        policies.dedup();
        let auth = Auth {
            client_token: token,
            // Made by us a moment ago, or found under this name: either way it was parsed.
            accessor: Accessor::parse(&entry.accessor).expect("a kept accessor is sound"),
            policies,
            token_policies: entry.policies.clone(),
            identity_policies,
            metadata: entry.meta.clone(),
            lease_duration: Ttl::seconds(entry.creation_ttl),
            renewable: entry.renewable,
            entity_id: entry.entity_id.clone(),
            token_type: "service",
            orphan: entry.is_orphan(),
            num_uses: entry.uses_left.unwrap_or(0),
        };
        (auth, warnings)
    }
}
