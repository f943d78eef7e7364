//! What time brings: tokens renewed on behalf of their services, files looked at, the store's own upkeep.
//!
//! A service that was off for a week finds a live token when it starts, because the boot has kept it alive meanwhile; a
//! token whose file was removed or changed is issued anew, and the gates that need it are shut until then.

use std::time::Duration;

use client::Vault;
use delivery::{Channel, Recipient, Standing};
use host::BootTime;

use super::running::Running;
use super::work::told;
use crate::machine::Event;
use crate::plan::ServiceName;
use crate::provision::{Minting, Receipt, Receipts, TokenKeeper};

/// A delivered token that is looked after.
pub(super) struct Watched {
    pub(super) receipt: Receipt,
    /// When it was last renewed.
    pub(super) renewed: BootTime,
    /// When its file was last looked at.
    pub(super) seen: BootTime,
    /// That the CA beside it cannot be seen to was said.
    pub(super) ca_told: bool,
}

enum Verdict {
    Good,
    Renewed,
    Lapsed(&'static str),
    Unknown(String),
}

impl Running {
    pub(super) async fn upkeep(&mut self, now: BootTime) {
        self.keep_door();
        if let Some(core) = self.hands.core.clone()
            && let Err(e) = core.tick().await
        {
            self.warn(format!("the store's upkeep waits: {}", e.logged()));
        }
        if let Some(audit) = self.hands.audit.clone()
            && let Err(e) = audit.tick()
        {
            self.alarm(told("the audit does not take records", &e));
        }
        self.turn_audit_again().await;
        self.watch_key();
        let names: Vec<ServiceName> = self.hands.watched.keys().cloned().collect();
        for service in names {
            match self.look_after(&service, now).await {
                Verdict::Good => {}
                Verdict::Renewed => {
                    if let Some(w) = self.hands.watched.get_mut(&service) {
                        w.renewed = now;
                    }
                }
                Verdict::Lapsed(why) => {
                    self.hands.watched.remove(&service);
                    self.warn(format!("the token of {service} is issued anew: {why}"));
                    self.feed(Event::Lapsed { service }).await;
                }
                // Not known is not lapsed: a busy store must not shut the gates. The token has two thirds of its period
                // left.
                Verdict::Unknown(text) => self.warn(text),
            }
        }
    }

    /// A device that runs so long without a start is told in time: the root key, which alone can replace the data key,
    /// is long gone.
    fn watch_key(&mut self) {
        let Some(head) = self.hands.store.as_ref().and_then(|store| store.head().ok()) else { return };
        if head.sealed_values >= self.env.key_wear.end / 2 && !self.hands.wear_told {
            self.hands.wear_told = true;
            self.alarm(format!(
                "the data key has encrypted {} values: restart edgekeep, which replaces it",
                head.sealed_values
            ));
        }
    }

    async fn look_after(&mut self, service: &ServiceName, now: BootTime) -> Verdict {
        let Some(plan) = self.plan.service(service) else { return Verdict::Good };
        let third = plan.token.period.as_duration() / 3;
        let Ok(to) = crate::provision::recipient(plan) else { return Verdict::Good };
        let Some(watched) = self.hands.watched.get_mut(service) else { return Verdict::Good };
        let look = now.since(watched.seen) >= LOOK;
        let renew = now.since(watched.renewed) >= third;
        if look {
            watched.seen = now;
            let Some(delivered) = watched.receipt.delivered() else {
                return Verdict::Lapsed("its receipt is unreadable");
            };
            match self.channel.verify(&to, &delivered) {
                Ok(Standing::Intact) => self.keep_ca(service, &to),
                Ok(Standing::Missing) => return Verdict::Lapsed("its file is gone"),
                Ok(Standing::Changed { what }) => return Verdict::Lapsed(what),
                Err(e) => {
                    return Verdict::Unknown(told(&format!("the token file of {service} cannot be looked at"), &e));
                }
            }
        }
        let Some(watched) = self.hands.watched.get(service) else { return Verdict::Good };
        let accessor = watched.receipt.accessor.clone();
        if !renew || !host::in_force("tokens-kept-alive") {
            return Verdict::Good;
        }
        let (Some(vault), Some(receipts)) = (&self.hands.vault, self.receipts()) else { return Verdict::Good };
        match renewed(vault, &receipts, self.channel(), self.env.clock.boot_id(), &accessor).await {
            Ok(true) => Verdict::Renewed,
            Ok(false) if self.is_our_token_alive().await => Verdict::Lapsed("it was revoked, or had ended"),
            Ok(false) => Verdict::Unknown(format!("the token of {service} is not renewed: ours is not taken any more")),
            Err(e) => Verdict::Unknown(told(&format!("the token of {service} is not renewed yet"), &e)),
        }
    }

    fn keep_ca(&mut self, service: &ServiceName, to: &Recipient) {
        let Some(certificates) = &self.hands.certificates else { return };
        let kept = self.channel.keep_ca(to, certificates.ca.pem().as_bytes());
        let Some(watched) = self.hands.watched.get_mut(service) else { return };
        // A disk that is full or read-only fails at each look: one line says so until it is mended.
        let told_before = std::mem::replace(&mut watched.ca_told, kept.is_err());
        match kept {
            Ok(false) => {}
            Ok(true) => self
                .warn(format!("the CA beside the token of {service} was gone or another, and is in its place again")),
            Err(_) if told_before => {}
            Err(e) => self.warn(told(&format!("the CA beside the token of {service} cannot be seen to"), &e)),
        }
    }
}

async fn renewed<V: Vault>(
    vault: &V,
    receipts: &Receipts,
    channel: &dyn Channel,
    boot: host::BootId,
    accessor: &str,
) -> Result<bool, crate::provision::ProvisionError> {
    TokenKeeper { channel, receipts, boot, ca_pem: &[], minting: Minting::ByBoot }.renew(vault, accessor).await
}

/// Between two looks at a token's file: cheap, and soon enough for a service that starts after somebody cleaned up.
const LOOK: Duration = Duration::from_secs(1);
