//! Old tokens: counted before the first new one is made, and ended after the last new one is in its file. A run that
//! fails in between leaves the services with the tokens that they have.
//!
//! A Vault may serve others too: what ends is what EdgeX or we made, told by its policies and by the login it came
//! from. Go's set-up ends every token there is.

use client::{AskError, Bearer, Calls, Vault};
use secret::Accessor;
use serde::Deserialize;
use serde_json::json;

use crate::door::CUSTODY_POLICY;
use crate::issuing::PRIVILEGED_POLICY;

/// The tokens that were alive before.
#[derive(Debug)]
pub struct Sweep {
    accessors: Vec<String>,
    spared: Vec<String>,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Ended now.
    pub revoked: usize,
    /// Ended by themselves in the meantime.
    pub vanished: usize,
    /// Left alive on purpose: tokens that are none of EdgeX's, and root tokens that are to be kept.
    pub spared: usize,
    /// Alive against our will.
    pub failed: usize,
}

#[derive(Deserialize)]
struct Looked {
    #[serde(default)]
    policies: Option<Vec<String>>,
    #[serde(default)]
    identity_policies: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<std::collections::BTreeMap<String, String>>,
}

impl Looked {
    fn has(&self, fits: impl Fn(&str) -> bool) -> bool {
        self.policies.iter().chain(&self.identity_policies).flatten().any(|name| fits(name))
    }

    fn is_root(&self) -> bool {
        self.has(|name| name == "root")
    }

    /// Services and users have a policy of EdgeX's name, by their token or by their entity; those of its versions 1 and
    /// 2 a mark.
    fn is_of_edgex(&self) -> bool {
        let ours = |name: &str| {
            name.starts_with("edgex-service-")
                || name.starts_with("edgex-user-")
                || name == PRIVILEGED_POLICY
                || name == CUSTODY_POLICY
        };
        self.has(ours) || self.meta.as_ref().is_some_and(|meta| meta.contains_key("edgex-service-name"))
    }
}

impl Sweep {
    /// Counts. Whoever calls holds a root token, which is spared.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn count<V: Vault>(root: &Bearer<'_, V>) -> Result<Self, AskError> {
        #[derive(Deserialize)]
        struct Own {
            accessor: String,
        }
        let calls = Calls::over(root);
        let path = "auth/token/lookup-self";
        let own: Own = calls.read(path).await?.ok_or_else(|| AskError::answer(path, "it is not there"))?;
        Ok(Self { accessors: calls.list("auth/token/accessors").await?, spared: vec![own.accessor] })
    }

    /// This one is new, however it came into the count.
    pub fn spare(&mut self, accessor: &Accessor) {
        self.spared.push(accessor.as_str().to_owned());
    }

    /// Ends every token of EdgeX's that was counted; root tokens only if `roots` says so. A token that has ended
    /// meanwhile is none that is left, and one that cannot be ended does not save the others.
    pub async fn end<V: Vault>(self, root: &Bearer<'_, V>, roots: bool) -> Swept {
        let calls = Calls::over(root);
        let mut swept = Swept::default();
        for accessor in self.accessors.iter().filter(|a| !self.spared.contains(a)) {
            match end_one(&calls, accessor, roots).await {
                Ok(Fate::Revoked) => swept.revoked += 1,
                Ok(Fate::Vanished) => swept.vanished += 1,
                Ok(Fate::Spared) => swept.spared += 1,
                Err(e) => {
                    tracing::warn!(accessor, error = %host::with_causes(&e), "an old token was not revoked");
                    swept.failed += 1;
                }
            }
        }
        swept
    }
}

enum Fate {
    Revoked,
    Vanished,
    Spared,
}

async fn end_one<V: Vault>(calls: &Calls<'_, V>, accessor: &str, roots: bool) -> Result<Fate, AskError> {
    let body = json!({ "accessor": accessor });
    let path = "auth/token/lookup-accessor";
    let looked: Looked = match calls.exchange(path, body.to_string().into_bytes().into()).await {
        Ok(looked) => looked,
        Err(e) if has_vanished(&e) => return Ok(Fate::Vanished),
        Err(e) => return Err(e),
    };
    let ends = if looked.is_root() { roots } else { looked.is_of_edgex() };
    if !ends && host::in_force("foreign-tokens-spared") {
        return Ok(Fate::Spared);
    }
    match calls.write("auth/token/revoke-accessor", &body).await {
        Ok(_) => Ok(Fate::Revoked),
        Err(e) if has_vanished(&e) => Ok(Fate::Vanished),
        Err(e) => Err(e),
    }
}

/// Root gets 400, 403 or 404 for an accessor that no token has, by the version.
fn has_vanished(error: &AskError) -> bool {
    matches!(error.status(), Some(400 | 403 | 404))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeStore;

    struct Bench {
        store: FakeStore,
        root: secret::Token,
    }

    impl Bench {
        /// A store with a root token of ours, one of somebody else's, and two of services.
        fn new() -> Self {
            let store = FakeStore::made(&["aa", "bb"], false);
            let root = store.state().token(&["root"]);
            store.state().token(&["root"]);
            store.state().token(&["edgex-service-a"]);
            store.state().token(&["edgex-service-b"]);
            Self { store, root: secret::Token::parse(&root).unwrap() }
        }

        fn alive(&self) -> Vec<String> {
            self.store.state().alive.keys().cloned().collect()
        }
    }

    #[tokio::test]
    async fn new_tokens_outlive_the_sweep_and_old_ones_do_not() {
        let bench = Bench::new();
        let root = Bearer::new(&bench.store, &bench.root);
        let sweep = Sweep::count(&root).await.unwrap();
        bench.store.state().token(&["edgex-service-a"]);
        assert_eq!(bench.alive(), ["1", "2", "3", "4", "5"], "nothing ends before the new ones are made");
        let swept = sweep.end(&root, true).await;
        assert_eq!(swept, Swept { revoked: 3, ..Swept::default() });
        assert_eq!(bench.alive(), ["1", "5"]);
    }

    /// Go's set-up ends them all.
    #[tokio::test]
    async fn tokens_of_a_vaults_other_users_live_on() {
        let bench = Bench::new();
        bench.store.state().token(&["default", "payroll"]);
        bench.store.state().token(&["default", "edgex-user-alice"]);
        let root = Bearer::new(&bench.store, &bench.root);
        let swept = Sweep::count(&root).await.unwrap().end(&root, true).await;
        assert_eq!(swept, Swept { revoked: 4, spared: 1, ..Swept::default() });
        assert_eq!(bench.alive(), ["1", "5"]);
    }

    #[test]
    fn what_is_edgexs_is_told_by_policies_entity_or_mark() {
        let is = |text: &str| serde_json::from_str::<Looked>(text).unwrap().is_of_edgex();
        for ours in [
            r#"{"policies":["default"],"identity_policies":["edgex-service-core-data"]}"#,
            r#"{"policies":["privileged-token-creator"]}"#,
            r#"{"policies":["edgekeep-custody"],"identity_policies":null}"#,
            r#"{"policies":["x"],"meta":{"edgex-service-name":"app"}}"#,
        ] {
            assert!(is(ours), "{ours}");
        }
        for other in
            [r#"{"policies":["default"]}"#, "{}", r#"{"policies":["my-edgex-service-x"],"meta":{"a":"edgex"}}"#]
        {
            assert!(!is(other), "{other}");
        }
    }

    #[tokio::test]
    async fn root_tokens_of_others_may_be_spared() {
        let bench = Bench::new();
        let root = Bearer::new(&bench.store, &bench.root);
        let swept = Sweep::count(&root).await.unwrap().end(&root, false).await;
        assert_eq!(swept, Swept { revoked: 2, spared: 1, ..Swept::default() });
    }

    /// Go's set-up stops at the first accessor that has ended meanwhile, and leaves the rest alive.
    #[tokio::test]
    async fn an_accessor_that_vanished_meanwhile_is_no_error() {
        let bench = Bench::new();
        let root = Bearer::new(&bench.store, &bench.root);
        let sweep = Sweep::count(&root).await.unwrap();
        bench.store.state().alive.remove("2");
        let swept = sweep.end(&root, true).await;
        assert_eq!(swept, Swept { revoked: 2, vanished: 1, ..Swept::default() });
        assert_eq!(bench.alive(), ["1"]);
    }

    #[tokio::test]
    async fn one_that_cannot_be_ended_is_told() {
        let bench = Bench::new();
        let root = Bearer::new(&bench.store, &bench.root);
        let sweep = Sweep::count(&root).await.unwrap();
        bench.store.state().refuse = Some(("auth/token/revoke-accessor", 500));
        assert_eq!(sweep.end(&root, true).await, Swept { failed: 3, ..Swept::default() });
    }
}
