//! A service's token: issued, delivered, receipted; and then kept alive.
//!
//! The order is the point. The new token is durable and delivered before its receipt is kept, and the old one dies only
//! after that: a cut at any line leaves the service with a live token in its file, or without a receipt, and then the
//! next run issues one.

use api::Auth;
use client::{AskError, Calls, Vault};
use delivery::{Channel, Parcel, Recipient, Standing};
use host::{BootId, Entropy};
use secret::Password;
use serde_json::json;
use zeroize::Zeroizing;

use crate::plan::ServicePlan;
use crate::provision::{ProvisionError, Receipt, Receipts};

/// What keeping a token needs besides the store.
pub struct TokenKeeper<'a> {
    /// The way to the services.
    pub channel: &'a dyn Channel,
    /// The receipts.
    pub receipts: &'a Receipts,
    /// This boot.
    pub boot: BootId,
    /// The CA's certificate, PEM, to lie beside each token.
    pub ca_pem: &'a [u8],
    /// How tokens are made there.
    pub minting: Minting<'a>,
}

/// How a service's token is made, and who ends those of an older boot.
#[derive(Clone, Copy)]
pub enum Minting<'a> {
    /// In our own store: by the boot, for the service's entity. Tokens of an older boot are refused there by
    /// themselves.
    ByBoot,
    /// In another's: by a login as the service, with a password that is made for it and thrown away, so that the token
    /// is the entity's and nobody's child. Tokens of an older boot live there, and end when the new ones are receipted.
    ByLogin {
        /// Path of the userpass mount below `auth/`.
        userpass: &'a str,
        /// For the passwords.
        entropy: &'a dyn Entropy,
    },
}

impl std::fmt::Debug for TokenKeeper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKeeper(..)")
    }
}

/// A token that its service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The receipt.
    pub receipt: Receipt,
    /// Whether it was issued now; otherwise it was there and good.
    pub issued: bool,
}

impl TokenKeeper<'_> {
    /// Sees that the service has a live token, delivered in this boot. `anew` issues one in any case.
    ///
    /// # Errors
    /// [`ProvisionError`]; then there is no receipt that says more than is true.
    pub async fn keep_token<V: Vault>(
        &self,
        vault: &V,
        service: &ServicePlan,
        entity: &str,
        anew: bool,
    ) -> Result<Kept, ProvisionError> {
        let to = recipient(service)?;
        let old = self.receipts.read(&service.name).await?;
        if let Some(receipt) = old.as_ref().filter(|_| !anew)
            && self.is_good(vault, &to, receipt).await?
            && host::in_force("receipts-kept")
        {
            return Ok(Kept { receipt: receipt.clone(), issued: false });
        }
        let auth = match self.minting {
            Minting::ByBoot => mint(vault, service, entity).await?,
            Minting::ByLogin { userpass, entropy } => log_in(vault, service, userpass, entropy).await?,
        };
        let accessor = auth.accessor.as_str().to_owned();
        let parcel = Parcel::new(&auth, self.ca_pem);
        drop(auth);
        let delivered = match self.channel.deliver(&to, &parcel) {
            Ok(delivered) => delivered,
            Err(e) => {
                // Nobody has it and nobody will; a full tmpfs must not leave a live token at each attempt.
                if host::in_force("undelivered-tokens-revoked") {
                    revoke(vault, &accessor).await;
                }
                return Err(e.into());
            }
        };
        // A cut here leaves two live tokens, of which the service has the newer; without its receipt the next run
        // issues a third, and the second ends by itself.
        let receipt = self.receipts.keep(&service.name, &accessor, self.boot, &delivered).await?;
        let lives_on = |old: &Receipt| old.is_of(self.boot) || matches!(self.minting, Minting::ByLogin { .. });
        if let Some(old) = old.filter(|old| lives_on(old) && old.accessor != accessor) {
            revoke(vault, &old.accessor).await;
        }
        Ok(Kept { receipt, issued: true })
    }

    /// Whether a receipt is of this boot, what it names lies there unchanged, and the token lives. A token that lives
    /// is renewed by this, so that a service which was off for days finds a live one.
    ///
    /// # Errors
    /// [`ProvisionError`] when it cannot be seen.
    pub async fn is_good<V: Vault>(
        &self,
        vault: &V,
        to: &Recipient,
        receipt: &Receipt,
    ) -> Result<bool, ProvisionError> {
        let Some(delivered) = receipt.delivered().filter(|_| receipt.is_of(self.boot)) else { return Ok(false) };
        if self.channel.verify(to, &delivered)? != Standing::Intact {
            return Ok(false);
        }
        // Not a reason for another token: the service may be using this one.
        self.channel.keep_ca(to, self.ca_pem)?;
        self.renew(vault, &receipt.accessor).await
    }

    /// Renews a token by its accessor. `false`: it is dead.
    ///
    /// # Errors
    /// [`ProvisionError`] when that cannot be said.
    pub async fn renew<V: Vault>(&self, vault: &V, accessor: &str) -> Result<bool, ProvisionError> {
        let calls = Calls::over(vault);
        match calls.write("auth/token/renew-accessor", &json!({ "accessor": accessor })).await {
            Ok(_) => Ok(true),
            // Vault's 400, 403 and 404 all mean here that no live token has this accessor.
            Err(AskError::Refused { status: 400 | 403 | 404, .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

async fn mint<V: Vault>(vault: &V, service: &ServicePlan, entity: &str) -> Result<Auth, ProvisionError> {
    let period = format!("{}s", service.token.period.as_seconds());
    let body = json!({
        "display_name": service.name.as_str(),
        "entity_id": entity,
        "policies": ["default"],
        "no_parent": true,
        "renewable": true,
        "period": period,
        "meta": { "edgex-service-name": service.name.as_str() },
    });
    Calls::over(vault).write_for_token("auth/token/create", &body).await.map_err(ProvisionError::from)
}

async fn log_in<V: Vault>(
    vault: &V,
    service: &ServicePlan,
    userpass: &str,
    entropy: &dyn Entropy,
) -> Result<Auth, ProvisionError> {
    let password = Password::generate(&mut |out| entropy.fill(out));
    let name = &service.name;
    // Base64: nothing in it needs an escape. Made once for both calls, and wiped after.
    let body = || Zeroizing::new(format!(r#"{{"password":"{}"}}"#, password.expose()).into_bytes());
    let calls = Calls::over(vault);
    calls.write_secret(&format!("auth/{userpass}/users/{name}"), body()).await?;
    Ok(calls.exchange_for_token(&format!("auth/{userpass}/login/{name}"), body()).await?)
}

/// Ends a token by its accessor. If that fails it ends by itself, at the end of its period, for nobody renews it.
pub async fn revoke<V: Vault>(vault: &V, accessor: &str) {
    let body = json!({ "accessor": accessor });
    if let Err(e) = Calls::over(vault).write("auth/token/revoke-accessor", &body).await {
        tracing::debug!(error = %e, "an old token was not revoked");
    }
}

/// Whom a service's token is for.
pub(crate) fn recipient(service: &ServicePlan) -> Result<Recipient, ProvisionError> {
    Recipient::new(service.name.as_str(), service.owner, service.mode.bits()).map_err(|_| ProvisionError::Service {
        service: service.name.to_string(),
        reason: "its name cannot be a directory's",
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    use delivery::{DeliverError, Delivered};
    use host::{Clock as _, OsDisk, WallTime};
    use testkit::{FakeClock, SeededEntropy};

    use super::*;
    use crate::provision::fake::FakeVault;
    use crate::testing::demo_plan;

    /// Remembers what it delivered, and can refuse.
    #[derive(Default)]
    struct Pigeon {
        last: Mutex<Option<Delivered>>,
        refuses: bool,
    }

    impl Channel for Pigeon {
        fn deliver(&self, to: &Recipient, parcel: &Parcel) -> Result<Delivered, DeliverError> {
            if self.refuses {
                return Err(DeliverError::OnDisk { path: PathBuf::from(to.service()) });
            }
            let digest = secret::crypto::sha256(&[parcel.expose_token_json()]);
            let delivered = Delivered { place: to.service().into(), digest };
            *self.last.lock().unwrap() = Some(delivered.clone());
            Ok(delivered)
        }

        fn verify(&self, _to: &Recipient, delivered: &Delivered) -> Result<Standing, DeliverError> {
            let same = self.last.lock().unwrap().as_ref() == Some(delivered);
            Ok(if same { Standing::Intact } else { Standing::Missing })
        }

        fn keep_ca(&self, _to: &Recipient, _ca_pem: &[u8]) -> Result<bool, DeliverError> {
            Ok(false)
        }

        fn withdraw(&self, _to: &Recipient) -> Result<(), DeliverError> {
            *self.last.lock().unwrap() = None;
            Ok(())
        }
    }

    struct Bench {
        _dir: tempfile::TempDir,
        vault: FakeVault,
        receipts: Receipts,
        clock: Arc<FakeClock>,
        service: ServicePlan,
    }

    impl Bench {
        fn new() -> Self {
            let dir = testkit::scratch_dir();
            let (clock, entropy) = (Arc::new(FakeClock::at(0)), Arc::new(SeededEntropy::new(1)));
            let config = store::StoreConfig::new(
                dir.path().join("store.db"),
                Arc::new(OsDisk),
                Arc::clone(&clock) as Arc<dyn host::Clock>,
                Arc::clone(&entropy) as Arc<dyn host::Entropy>,
                WallTime(0),
            );
            let slots = store::SlotSet { generation: 1, digest: [0; 32] };
            let new = store::NewStore { store_id: [1; 16], profile: store::Profile::Demo, slots };
            let store = store::Store::create(&config, &seal::new_root_key(&*entropy), &new).unwrap();
            let service = demo_plan("/d".as_ref(), "/r".as_ref()).services.remove(0);
            Self { _dir: dir, vault: FakeVault::default(), receipts: Receipts::new(store), clock, service }
        }

        async fn keep(&self, channel: &Pigeon, anew: bool) -> Result<Kept, ProvisionError> {
            let boot = self.clock.boot_id();
            let minting = Minting::ByBoot;
            let keeper = TokenKeeper { channel, receipts: &self.receipts, boot, ca_pem: b"ca", minting };
            keeper.keep_token(&self.vault, &self.service, "entity", anew).await
        }
    }

    #[tokio::test]
    async fn the_old_token_dies_only_after_the_new_ones_receipt() {
        let (bench, pigeon) = (Bench::new(), Pigeon::default());
        let first = bench.keep(&pigeon, false).await.unwrap();
        assert!(first.issued);
        assert!(!bench.keep(&pigeon, false).await.unwrap().issued, "it is good");
        let second = bench.keep(&pigeon, true).await.unwrap();
        assert_eq!(bench.vault.alive(), std::slice::from_ref(&second.receipt.accessor));
        assert_eq!(bench.receipts.read(&bench.service.name).await.unwrap(), Some(second.receipt));
    }

    #[tokio::test]
    async fn a_dead_token_a_lost_file_and_another_boot_are_issued_anew() {
        let (bench, pigeon) = (Bench::new(), Pigeon::default());
        let first = bench.keep(&pigeon, false).await.unwrap();
        bench.vault.kill(&first.receipt.accessor);
        assert!(bench.keep(&pigeon, false).await.unwrap().issued);
        *pigeon.last.lock().unwrap() = None;
        assert!(bench.keep(&pigeon, false).await.unwrap().issued);
        bench.clock.reboot();
        assert!(bench.keep(&pigeon, false).await.unwrap().issued);
    }

    #[tokio::test]
    async fn what_was_not_delivered_leaves_no_live_token_and_no_receipt() {
        let bench = Bench::new();
        let refusing = Pigeon { refuses: true, ..Pigeon::default() };
        assert!(matches!(bench.keep(&refusing, false).await, Err(ProvisionError::Deliver(_))));
        assert_eq!(bench.vault.alive(), [""; 0]);
        assert_eq!(bench.receipts.read(&bench.service.name).await.unwrap(), None);
    }
}
