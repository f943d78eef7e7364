//! A service's token: issued, delivered, receipted; and then kept alive.
//!
//! The order is the point. The new token is durable and delivered before its receipt is kept, and the old one dies only after
//! that: a cut at any line leaves the service with a live token in its file, or without a receipt, and then the next run
//! issues one.

use client::Vault;
use delivery::{Channel, Parcel, Recipient, Standing};
use host::BootId;
use serde_json::json;

use crate::plan::ServicePlan;
use crate::provision::calls::Calls;
use crate::provision::{ProvisionError, Receipt, Receipts};

/// What keeping a token needs besides the store.
pub struct Keeper<'a> {
    /// The way to the services.
    pub channel: &'a dyn Channel,
    /// The receipts.
    pub receipts: &'a Receipts,
    /// This boot.
    pub boot: BootId,
    /// The CA's certificate, PEM, to lie beside each token.
    pub ca_pem: &'a [u8],
}

impl std::fmt::Debug for Keeper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper(..)")
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

impl Keeper<'_> {
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
        {
            return Ok(Kept { receipt: receipt.clone(), issued: false });
        }
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
        let auth = Calls(vault).write_for_token("auth/token/create", &body).await?;
        let accessor = auth.accessor.as_str().to_owned();
        let parcel = Parcel::new(&auth, self.ca_pem);
        drop(auth);
        let delivered = match self.channel.deliver(&to, &parcel) {
            Ok(delivered) => delivered,
            Err(e) => {
                // Nobody has it and nobody will; a full tmpfs must not leave a live token at each attempt.
                revoke(vault, &accessor).await;
                return Err(e.into());
            }
        };
        // A cut here leaves two live tokens, of which the service has the newer; without its receipt the next run issues a
        // third, and the second ends by itself.
        let receipt = self.receipts.keep(&service.name, &accessor, self.boot, &delivered).await?;
        if let Some(old) = old.filter(|old| old.is_of(self.boot)) {
            revoke(vault, &old.accessor).await;
        }
        Ok(Kept { receipt, issued: true })
    }

    /// Whether a receipt is of this boot, what it names lies there unchanged, and the token lives. A token that lives is renewed
    /// by this, so that a service which was off for days finds a live one.
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
        self.renew(vault, &receipt.accessor).await
    }

    /// Renews a token by its accessor. `false`: it is dead.
    ///
    /// # Errors
    /// [`ProvisionError`] when that cannot be said.
    pub async fn renew<V: Vault>(&self, vault: &V, accessor: &str) -> Result<bool, ProvisionError> {
        let calls = Calls(vault);
        match calls.write("auth/token/renew-accessor", &json!({ "accessor": accessor })).await {
            Ok(_) => Ok(true),
            // Vault's 400, 403 and 404 all mean here that no live token has this accessor.
            Err(ProvisionError::Refused { status: 400 | 403 | 404, .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Ends a token by its accessor. If that fails it ends by itself, at the end of its period, for nobody renews it.
pub async fn revoke<V: Vault>(vault: &V, accessor: &str) {
    let body = json!({ "accessor": accessor });
    if let Err(e) = Calls(vault).write("auth/token/revoke-accessor", &body).await {
        tracing::debug!(error = %e, "an old token was not revoked");
    }
}

/// Whom a service's token is for.
pub(crate) fn recipient(service: &ServicePlan) -> Result<Recipient, ProvisionError> {
    Recipient::new(service.name.as_str(), service.owner, service.mode.bits()).map_err(|_| ProvisionError::Answer {
        path: service.name.to_string(),
        reason: "the service's name cannot be a directory's",
    })
}
