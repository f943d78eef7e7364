//! Key material that another machine of the site or the fleet keeps: an edgekeep, an OpenBao or a Vault.
//!
//! ```text
//! provision  log in -> transit: 32 octets of ours, encrypted there; the ciphertext goes into the slot
//!                   -> kv:      32 octets, kept there; what is there already is taken
//! release    log in -> transit: decrypt   -> kv: read   -> is it the slot's? -> log out
//! ```
//! The holder knows each device by name, by its certificate or its role, writes every release into its audit, and can
//! shut one device out while its neighbours start. Its TLS certificate is pinned by the CA. What it says may be other
//! in a minute: a refusal, a wrong key, silence. All of it is told and asked again, and none of it stops a device for
//! good.

mod ask;
mod setup;
mod slot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::{Deadlines, HttpsVault, Trust};
use host::{Clock, Disk, Entropy};
use secret::{Secret, SecretBytes};
use zeroize::Zeroizing;

use super::{
    Auth, Capabilities, Closed, Deadline, Evidence, Fit, KeySource, Left, PolicyRequest, Provisioned, Released,
    SourceError, Wanted, secret_file,
};
use crate::ikm::Ikm;
use crate::slot::{SlotPublic, SourceKind};
use ask::{Asking, Fault, Proof, on_a_thread};
pub use setup::{Escrow, EscrowName, EscrowNameError, Hold, Identity, Login};
use slot::EscrowSlot;

/// The source `escrow`.
pub struct EscrowSource {
    setup: Escrow,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl EscrowSource {
    /// The holder, and how it knows this device.
    pub fn new(setup: Escrow, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { setup, disk, clock, entropy }
    }

    fn what(&self) -> String {
        self.setup.address()
    }

    /// The holder behind its pinned CA, with our certificate where there is one.
    fn holder(&self, limit: Duration) -> Result<HttpsVault, SourceError> {
        let setup = &self.setup;
        let unfit = |path: &std::path::Path, e: &client::TrustError| SourceError::NotTrusted {
            path: path.display().to_string(),
            defect: e.to_string(),
        };
        let ca = secret_file::read_public(&*self.disk, &setup.ca, MAX_PEM_BYTES)?;
        let mut trust = Trust::of_pem(&ca).map_err(|e| unfit(&setup.ca, &e))?;
        if let Some(name) = &setup.server_name {
            trust = trust.named(name).map_err(|e| unfit(&setup.ca, &e))?;
        }
        if let Some(identity) = &setup.identity {
            let chain = secret_file::read_public(&*self.disk, &identity.certificate, MAX_PEM_BYTES)?;
            let key = secret_file::read_secret(&*self.disk, &identity.key, MAX_PEM_BYTES)?;
            trust = trust.presenting(&chain, &key).map_err(|e| unfit(&identity.certificate, &e))?;
        }
        let deadlines = Deadlines { connect: limit, total: limit };
        HttpsVault::new(&setup.host, setup.port, &trust, deadlines).map_err(|e| unfit(&setup.ca, &e))
    }

    /// What the login needs besides the certificate.
    fn proof(&self) -> Result<Proof, SourceError> {
        let file = match &self.setup.login {
            Login::Certificate { .. } => return Ok(Proof::Certificate),
            Login::AppRole { secret_id, .. } => secret_id,
            Login::Userpass { password, .. } => password,
        };
        let bytes = secret_file::read_secret(&*self.disk, file, MAX_SECRET_BYTES)?;
        let text = std::str::from_utf8(bytes.strip_suffix(b"\n").unwrap_or(&bytes));
        match text {
            Ok(text) if !text.is_empty() && !text.contains(|c: char| c.is_control()) => {
                Ok(Proof::Secret(Zeroizing::new(text.to_owned())))
            }
            _ => {
                Err(SourceError::BadOutput { what: file.display().to_string(), defect: "one line of text is expected" })
            }
        }
    }

    /// Logs in and does `work` by the deadline; then logs out, for which a key that is here does not wait long.
    fn logged_in<T: Send>(
        &self,
        deadline: Deadline,
        work: impl AsyncFnOnce(&Asking<'_>) -> Result<T, Fault> + Send,
    ) -> Result<T, SourceError> {
        let limit = deadline.left(&*self.clock);
        let (holder, proof) = (self.holder(limit)?, self.proof()?);
        let session = || async {
            let in_time = tokio::time::timeout(limit, async {
                let asking = Asking::log_in(&holder, &self.setup.login, proof).await?;
                let done = work(&asking).await;
                Ok((asking, done))
            });
            let (asking, done) = in_time.await.map_err(|_| Fault::TooSlow(deadline.limit())).flatten()?;
            asking.log_out().await;
            done
        };
        on_a_thread(session)
            .map_err(|source| SourceError::Os { what: "asking the holder of the key".into(), source })?
            .map_err(|fault| fault.into_error(self.what()))
    }

    fn ikm(&self, octets: &[u8]) -> Result<Ikm, SourceError> {
        Ikm::new(SecretBytes::new(octets.to_vec()), None)
            .map_err(|source| SourceError::Ikm { what: self.what(), source })
    }

    fn evidence(&self) -> Evidence {
        Evidence(vec![("holder", self.what()), ("key", self.setup.hold.place())])
    }
}

impl std::fmt::Debug for EscrowSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EscrowSource({}, {})", self.what(), self.setup.hold.place())
    }
}

impl KeySource for EscrowSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Escrow
    }

    /// Certificates, key and password; the holder is not asked.
    fn look(&self, _wish: Wanted, _auth: &dyn Auth) -> Result<(), SourceError> {
        self.holder(PROBE_LIMIT)?;
        self.proof().map(drop)
    }

    /// By the place at the holder.
    fn fits(&self, slot: &SlotPublic) -> Fit {
        Fit::by_name(EscrowSlot::read(slot).is_some_and(|slot| slot.place == self.setup.hold.place()))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { revocable_remotely: true, needs_network: true, bus_encrypted: true, ..Capabilities::default() }
    }

    /// Asks the holder how it is, as anybody may. That it does not answer is a fact and no error.
    fn probe(&mut self, deadline: Deadline) -> Result<Evidence, SourceError> {
        let deadline = Deadline::after(&*self.clock, PROBE_LIMIT).min(deadline);
        let limit = deadline.left(&*self.clock);
        let holder = self.holder(limit)?;
        self.proof()?;
        let state = match on_a_thread(async || tokio::time::timeout(limit, ask::health(&holder)).await) {
            Ok(Ok(state)) => state,
            Ok(Err(_)) => Fault::TooSlow(deadline.limit()).told(),
            Err(source) => return Err(SourceError::Os { what: "asking the holder of the key".into(), source }),
        };
        let mut evidence = self.evidence();
        evidence.0.push(("holder says", state));
        Ok(evidence)
    }

    fn provision(
        &mut self,
        policy: &PolicyRequest,
        _auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        policy.enforceable(SourceKind::Escrow, &self.capabilities())?;
        let fresh = Secret::<32>::init_with(|octets| self.entropy.fill(octets));
        let hold = self.setup.hold.clone();
        let (ciphertext, back) = self.logged_in(deadline, async |asking| match &hold {
            Hold::Transit { mount, key } => {
                let ciphertext = asking.encrypt(mount, key, fresh.expose()).await?;
                let back = asking.decrypt(mount, key, &ciphertext).await?;
                Ok((Some(ciphertext), back))
            }
            Hold::Kv { mount, path, version } => {
                if let Some(there) = asking.read(mount, path, *version).await? {
                    return Ok((None, there));
                }
                asking.write(mount, path, *version, fresh.expose()).await?;
                // What stands there now, whoever wrote it: another device of the same name may have been faster.
                let back = asking.read(mount, path, *version).await?;
                back.map(|back| (None, back)).ok_or(Fault::Gone)
            }
        })?;
        if ciphertext.is_some() && !secret::crypto::ct_eq(&back, fresh.expose()) {
            return Err(SourceError::Drifts { what: self.what() });
        }
        let ikm = self.ikm(&back)?;
        let slot = EscrowSlot { place: self.setup.hold.place(), ciphertext, check: slot::check(&ikm) };
        Ok(Provisioned { public: slot.write()?, ikm })
    }

    fn release(&mut self, slot: &SlotPublic, _auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        let slot = EscrowSlot::read(slot).ok_or(SourceError::OtherSlot { kind: SourceKind::Escrow })?;
        let (found, expected) = (self.setup.hold.place(), slot.place);
        if found != expected {
            return Err(SourceError::WrongDevice { what: "the key in [source]".into(), found, expected });
        }
        let hold = self.setup.hold.clone();
        let octets = self.logged_in(deadline, async |asking| match (&hold, &slot.ciphertext) {
            (Hold::Transit { mount, key }, Some(ciphertext)) => asking.decrypt(mount, key, ciphertext).await,
            (Hold::Kv { mount, path, version }, None) => asking.read(mount, path, *version).await?.ok_or(Fault::Gone),
            _ => Err(Fault::OtherKey),
        })?;
        let ikm = self.ikm(&octets).map_err(|_| Fault::OtherKey.into_error(self.what()))?;
        if slot::check(&ikm) != slot.check && host::in_force("escrow-checked") {
            return Err(Fault::OtherKey.into_error(self.what()));
        }
        Ok(Released { ikm, evidence: self.evidence(), remaining_this_boot: None })
    }

    /// The holder gives it to whoever may have it.
    fn close(&mut self, _slot: &SlotPublic, _deadline: Deadline) -> Result<Closed, SourceError> {
        Ok(Closed::releases_on())
    }

    /// The holder is not asked to destroy anything: a device may use its key, and not end it. Whoever runs the holder
    /// shuts it out there.
    fn left_of(&mut self, _slot: &SlotPublic, _auth: &dyn Auth, _deadline: Deadline) -> Result<Left, SourceError> {
        let place = self.setup.hold.place();
        Ok(Left::Copies(format!("{} keeps {place}, until the device is shut out there", self.what())))
    }
}

/// For fuzzers: what is read is written as the same slot.
pub(super) fn fuzz(slot: &SlotPublic) {
    if let Some(read) = EscrowSlot::read(slot) {
        assert!(read.write().is_ok_and(|written| written == *slot));
    }
}

/// For fuzzers: any answer is read or refused.
pub(super) fn fuzz_reply(data: &[u8]) {
    if let Some(text) = ask::parse::ciphertext(data) {
        assert!(slot::is_plain(&text));
    }
    drop((ask::parse::plaintext(data), ask::parse::kept(data, 1), ask::parse::kept(data, 2)));
}

/// Certificates and keys, in PEM.
const MAX_PEM_BYTES: usize = 64 * 1024;
/// A SecretID or a password.
const MAX_SECRET_BYTES: usize = 1024;
/// What a look at the holder may take.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
