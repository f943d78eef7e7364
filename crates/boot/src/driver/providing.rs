//! What the services are provided with: mounts, credentials, and for each of them identity and token.

use client::Vault;

use super::environment::Note;
use super::running::Running;
use super::seam::Seam;
use super::upkeep::Watched;
use super::work::told;
use crate::join::join_all;
use crate::machine::Event;
use crate::plan::ServiceName;
use crate::provision::{Kept, Minting, ProvisionError, TokenKeeper, keep_credentials, keep_identity, lay_ground};

impl Running {
    pub(super) async fn lay_ground(&mut self) -> Event {
        let Some(vault) = &self.hands.vault else { return Event::NoGround };
        match lay_ground(vault, &self.plan).await {
            Ok(ground) => {
                self.hands.ground = Some(ground);
                Event::GroundLaid
            }
            Err(e) => {
                self.warn(told("mounts and signing key are not there yet", &e));
                Event::NoGround
            }
        }
    }

    pub(super) async fn keep_credentials(&mut self) -> Event {
        let (Some(vault), Some(ground)) = (&self.hands.vault, &self.hands.ground) else {
            return Event::CredentialsLacking;
        };
        match keep_credentials(vault, &self.plan, ground, &*self.env.entropy).await {
            Ok(_) => {
                self.hands.credentials = true;
                Event::CredentialsKept
            }
            Err(e) => {
                self.warn(told("credentials are not all there yet", &e));
                Event::CredentialsLacking
            }
        }
    }

    /// Provides for several services together.
    pub(super) async fn provide(&mut self, wanted: Vec<(ServiceName, bool)>) -> Vec<Event> {
        let (Some(vault), Some(ground), Some(receipts), Some(pem)) =
            (&self.hands.vault, &self.hands.ground, self.receipts(), self.ca_pem())
        else {
            return wanted.into_iter().map(|(service, _)| Event::NotProvided { service }).collect();
        };
        let minting = match vault {
            Seam::Ours(_) => Minting::ByBoot,
            Seam::Theirs(_) => Minting::ByLogin { userpass: &ground.userpass, entropy: &*self.env.entropy },
        };
        let keeper = TokenKeeper {
            channel: &self.channel,
            receipts: &receipts,
            boot: self.env.clock.boot_id(),
            ca_pem: pem.as_bytes(),
            minting,
        };
        let (plan, entropy, entities) = (&self.plan, &*self.env.entropy, &self.hands.entities);
        let (keeper, known) = (&keeper, &entities);
        let outcomes = join_all(wanted.into_iter().map(|(name, anew)| async move {
            let outcome = one(vault, plan, ground, entropy, keeper, known.get(&name), &name, anew).await;
            (name, outcome)
        }))
        .await;
        let mut events = Vec::with_capacity(outcomes.len());
        for (service, outcome) in outcomes {
            events.push(self.provided(service, outcome));
        }
        self.reduce_when_done();
        events
    }

    fn provided(&mut self, service: ServiceName, outcome: Result<(String, Kept), ProvisionError>) -> Event {
        match outcome {
            Ok((entity, Kept { receipt, issued })) => {
                let digest = receipt.digest();
                let place = receipt.place.clone().into();
                self.hands.entities.insert(service.clone(), entity);
                let now = self.env.clock.boottime();
                self.hands
                    .watched
                    .insert(service.clone(), Watched { receipt, renewed: now, seen: now, ca_told: false });
                self.observer.note(Note::Token { service: service.clone(), place, issued });
                Event::Provided { service, receipt: digest }
            }
            Err(e) => {
                self.warn(told(&format!("{service} has no token yet"), &e));
                Event::NotProvided { service }
            }
        }
    }

    /// When everything was made once, the boot gives up the power to make it.
    fn reduce_when_done(&mut self) {
        let all = self.plan.services.iter().all(|s| self.hands.entities.contains_key(&s.name));
        if all && self.hands.credentials && self.hands.ground.is_some() {
            self.hands.vault = self.hands.vault.take().map(Seam::reduce);
        }
    }
}

/// Identity and token of one service.
#[expect(clippy::too_many_arguments, reason = "one call, split off so that it can run beside others")]
async fn one<V: Vault>(
    vault: &V,
    plan: &crate::plan::Plan,
    ground: &crate::provision::Ground,
    entropy: &dyn host::Entropy,
    keeper: &TokenKeeper<'_>,
    entity: Option<&String>,
    name: &ServiceName,
    anew: bool,
) -> Result<(String, Kept), ProvisionError> {
    let service = plan
        .service(name)
        .ok_or_else(|| ProvisionError::Service { service: name.to_string(), reason: "the plan has none" })?;
    let entity = match entity {
        Some(entity) => entity.clone(),
        None => keep_identity(vault, service, ground, entropy).await?,
    };
    let kept = keeper.keep_token(vault, service, &entity, anew).await?;
    Ok((entity, kept))
}
