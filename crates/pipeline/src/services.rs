//! What the stages and the engines of the core share: tokens, policies, mounts, entities.
//!
//! An engine reaches the tokens, policies or mounts only if it was built with them: `kv` was not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use api::{PeerCertificates, Ttl, Uuid};
use host::{Clock, Entropy};
use policy::{Compiled, DEFAULT_NAME, ROOT_NAME};
use secret::Token;
use store::{Store, StorePath};

use crate::directory::{Alias, Directory, Standing};
use crate::error::EngineError;
use crate::mounts::{IDENTITY, Mounts, TOKENS};
use crate::policies::Policies;
use crate::tokens::{Acl, Generation, LiveToken, Renewed, Spent, TokenId, Tokens, TtlRules};
use crate::txn::{Ground, Txn};

/// The shared parts of one unsealed store.
pub struct Services {
    pub(crate) ground: Arc<Ground>,
    /// The tokens.
    pub tokens: Arc<Tokens>,
    /// The policies.
    pub policies: Arc<Policies>,
    /// The mounts.
    pub mounts: Arc<Mounts>,
    pub(crate) directory: OnceLock<Arc<dyn Directory>>,
    identity_generation: AtomicU64,
}

/// A presented token.
#[derive(Clone, Copy)]
pub(crate) struct Presented<'r> {
    pub(crate) token: &'r Token,
    pub(crate) id: TokenId,
    pub(crate) spent: Spent,
}

/// A valid token, and what its policies are now.
pub(crate) struct Bearer {
    pub(crate) live: Arc<LiveToken>,
    pub(crate) acl: Arc<Compiled>,
}

impl Services {
    /// The shared parts over an unsealed store. Nothing is read yet; [`crate::Core::open`] does that.
    pub fn new(store: Store, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Arc<Self> {
        let ground = Arc::new(Ground { store, clock, entropy });
        let mounts = Arc::new(Mounts::new());
        Arc::new(Self {
            tokens: Arc::new(Tokens::new(&ground, &mounts)),
            policies: Arc::new(Policies::default()),
            mounts,
            directory: OnceLock::new(),
            identity_generation: AtomicU64::new(0),
            ground,
        })
    }

    /// The name by which `sys/health` tells this store from others: a UUID that stays for the store's life and tells
    /// nothing of its keys. Ask once, while the store is open.
    pub fn cluster_id(&self) -> String {
        let code = self.ground.store.mac("cluster-id", &[]);
        Uuid::from_random(code[..16].try_into().expect("half of a MAC")).to_string()
    }

    /// A transaction on the whole store, for the stages themselves.
    pub(crate) fn txn(&self) -> Txn {
        Txn::new(&self.ground, StorePath::new::<String>([]).expect("the root directory is a path"))
    }

    /// The bearer of a presented token, or `None` if it is good for nothing.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read: then nobody is let in.
    pub(crate) async fn bearer(&self, presented: Presented<'_>, txn: &mut Txn) -> Result<Option<Bearer>, EngineError> {
        let Some(live) = self.tokens.known(presented.id).await? else { return Ok(None) };
        let paid = presented.spent.pays_for(live.entry().uses_left);
        if !paid || !self.tokens.is_alive(&live) {
            return Ok(None);
        }
        live.set_token_code(|| self.tokens.code(presented.token.expose().as_bytes()));
        if live.entry().uses_left.is_none() {
            txn.on_behalf_of(live.id(), live.version());
        }
        let acl = self.acl(&live, txn).await?;
        Ok(acl.map(|acl| Bearer { live, acl: acl.compiled.clone() }))
    }

    /// The token's policies and those of its entity, as they are now; `None` when the entity is disabled or gone.
    pub(crate) async fn acl(&self, live: &LiveToken, txn: &mut Txn) -> Result<Option<Arc<Acl>>, EngineError> {
        let generation = self.generation();
        if let Some(acl) = live.cached_acl(generation) {
            return Ok(acl);
        }
        let entry = live.entry();
        let standing = match entry.entity_id.as_str() {
            "" => Some(Standing::default()),
            id => self.standing(id, txn).await?.filter(|s| !s.disabled),
        };
        let acl = match standing {
            Some(standing) => Some(Arc::new(self.compile(&entry.policies, standing, txn).await?)),
            None => None,
        };
        live.cache_acl(generation, acl.clone());
        Ok(acl)
    }

    /// The entity of that id, as it is now.
    pub(crate) async fn standing(&self, id: &str, txn: &mut Txn) -> Result<Option<Standing>, EngineError> {
        let (Some(directory), Some(base)) = (self.directory.get(), self.mounts.base_of(IDENTITY)) else {
            return Ok(None);
        };
        let outer = txn.enter(base);
        let found = directory.entity(id, txn).await;
        txn.leave(outer);
        found
    }

    async fn compile(&self, own: &[String], standing: Standing, txn: &mut Txn) -> Result<Acl, EngineError> {
        let root = own.iter().any(|p| p == ROOT_NAME);
        // An entity that names `root` would be a way to it for whoever may write entities.
        let of_entity = added(standing.policies, own);
        let names = own.iter().chain(of_entity.iter().filter(|_| !root));
        let mut policies = Vec::new();
        for name in names {
            policies.extend(self.policies.parsed(name, txn).await?);
        }
        let compiled = Compiled::merge(policies.iter().map(|p| &**p), &standing.identity)
            .map_err(|e| EngineError::internal(format!("the policies of a token cannot stand together: {e}")))?;
        Ok(Acl { compiled: Arc::new(compiled), identity_policies: of_entity })
    }

    /// The policies that a token has through its entity at this moment, sorted.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read.
    pub async fn identity_policies(&self, live: &LiveToken) -> Result<Vec<String>, EngineError> {
        let acl = self.acl(live, &mut self.txn()).await?;
        Ok(acl.map(|acl| acl.identity_policies.clone()).unwrap_or_default())
    }

    /// What a token may do at this moment; `None` for one whose entity is disabled or gone.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read.
    pub async fn rights(&self, live: &LiveToken) -> Result<Option<Arc<Compiled>>, EngineError> {
        let acl = self.acl(live, &mut self.txn()).await?;
        Ok(acl.map(|acl| acl.compiled.clone()))
    }

    /// The entity of that id, if it is there and not disabled, with the policies that it gives.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read.
    pub async fn entity(&self, id: &str, txn: &mut Txn) -> Result<Option<Standing>, EngineError> {
        Ok(self.standing(id, txn).await?.filter(|s| !s.disabled))
    }

    /// The id of the entity that a mount knows by this name, made in `txn` if there is none.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn resolve(&self, alias: &Alias<'_>, txn: &mut Txn) -> Result<String, EngineError> {
        let (Some(directory), Some(base)) = (self.directory.get(), self.mounts.base_of(IDENTITY)) else {
            return Err(EngineError::internal("there is no directory of entities"));
        };
        let outer = txn.enter(base);
        let id = directory.resolve(alias, txn).await;
        txn.leave(outer);
        id
    }

    /// Renews a token by what counts today: a login is asked of the engine that let it in, any other token of
    /// `auth/token/`.
    ///
    /// # Errors
    /// 400 for a token that cannot be renewed, or not any more.
    pub async fn renew(
        &self,
        live: &LiveToken,
        increment: Ttl,
        by: Option<&PeerCertificates>,
        txn: &mut Txn,
    ) -> Result<Renewed, EngineError> {
        let (entry, table) = (live.entry(), self.mounts.table());
        let mounted = match &entry.mount {
            Some(accessor) => table.with_accessor(accessor),
            None => table.at(TOKENS),
        };
        let (mounted, engine) = mounted
            .and_then(|m| Some((m, m.engine()?)))
            .ok_or_else(|| EngineError::bad_request("the mount that let the bearer in is gone, not renewing"))?;
        let outer = txn.enter(mounted.base().clone());
        let rules = engine.renewal(entry, by, txn).await;
        txn.leave(outer);
        let rules = match rules {
            Err(_) if !host::in_force("renewals-ask-the-login") => TtlRules::of(entry),
            rules => rules?,
        };
        let capped =
            if host::in_force("renewals-capped") { rules.within(mounted.entry()) } else { TtlRules::of(entry) };
        self.tokens.renew(live.id(), increment, capped, txn).await
    }

    /// A commit touched these paths: whatever memory holds of them is forgotten. No engine has to think of it.
    pub(crate) async fn published(&self, touched: &Touched) -> Result<(), EngineError> {
        if touched.policies {
            self.policies.changed();
        }
        if touched.identity {
            self.identity_generation.fetch_add(1, Ordering::AcqRel);
        }
        if touched.tokens {
            self.tokens.changed();
        }
        if touched.mounts {
            self.mounts.reload(&self.ground).await?;
        }
        Ok(())
    }

    /// Which kinds of cached things a commit of `txn` makes stale.
    pub(crate) fn touched(&self, txn: &Txn) -> Touched {
        let identity = self.mounts.base_of(IDENTITY);
        let mut touched = Touched::default();
        for path in txn.touched() {
            touched.policies |= Policies::owns(path);
            touched.mounts |= Mounts::owns(path);
            // A token that is being made is in no cache yet; one that is changed or removed may be.
            touched.tokens |= Tokens::owns(path) && !txn.saw_absent(path);
            touched.identity |= identity.as_ref().is_some_and(|base| path.components().starts_with(base.components()));
        }
        touched
    }

    fn generation(&self) -> Generation {
        [self.policies.generation(), self.identity_generation.load(Ordering::Acquire), self.mounts.generation()]
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services(..)")
    }
}

/// What a commit touched, by kinds of cached things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    policies: bool,
    identity: bool,
    tokens: bool,
    mounts: bool,
}

impl Touched {
    /// Everything: when it is not known whether a commit was made.
    pub(crate) fn all() -> Self {
        Self { policies: true, identity: true, tokens: true, mounts: true }
    }
}

/// The policies that an entity adds to a token's own: sorted, each once, and never `root`, which comes from a token
/// alone.
pub fn added(of_entity: Vec<String>, own: &[String]) -> Vec<String> {
    let mut added: Vec<String> = of_entity.into_iter().filter(|p| p != ROOT_NAME && !own.contains(p)).collect();
    added.sort();
    added.dedup();
    added
}

/// The policies of a new token: sorted, each once, with `default` unless it is to stay away or the token is root's.
pub fn sanitized(policies: impl IntoIterator<Item = String>, with_default: bool) -> Vec<String> {
    let mut all: Vec<String> =
        policies.into_iter().map(|p| p.trim().to_lowercase()).filter(|p| !p.is_empty()).collect();
    if all.iter().any(|p| p == ROOT_NAME) {
        return vec![ROOT_NAME.to_owned()];
    }
    if with_default {
        all.push(DEFAULT_NAME.to_owned());
    }
    all.sort();
    all.dedup();
    all
}
