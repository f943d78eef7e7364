//! Key material that a smart card or HSM gives, through its vendor's PKCS #11 module.
//!
//! The module is foreign C code, and stays outside: it is loaded by the helper `ikm-pkcs11`, started for one request
//! under the rules of a hook (whose file it is, a process group of its own, an empty environment, bounds of time and
//! output). What the helper answers is parsed as any other outside bytes.
//!
//! A PIN is asked for once and tried once. The helper spends no try where the token says that few are left.

mod slot;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use host::Clock;
use ikm::{Errand, Key, Refusal, Reply, Request, TokenFacts, TokenName, Wish};
use secret::SecretBytes;

use super::process::{self, Asked, Trusted};
use super::{
    Auth, AuthRequest, Capabilities, Closed, Deadline, Evidence, Fit, KeySource, Left, PolicyRequest, Provisioned,
    Released, SourceError, Wanted,
};
use crate::ikm::Ikm;
use crate::slot::{SlotPublic, SourceKind};
use slot::TokenKey;

/// A token, and what is needed to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Setup {
    /// The helper `ikm-pkcs11`: an absolute path.
    pub helper: PathBuf,
    /// The vendor's module: an absolute path.
    pub module: PathBuf,
    /// The token, by label and serial number.
    pub token: TokenName,
    /// How a new slot's key is to be used.
    pub wish: Wish,
    /// Whether the PIN is tried though the token says that few tries are left.
    pub danger_last_try: bool,
    /// The helper's whole environment: what the module's vendor asks for.
    pub env: Vec<(String, String)>,
}

/// The source `pkcs11`.
pub struct Pkcs11Source {
    setup: Pkcs11Setup,
    clock: Arc<dyn Clock>,
}

impl Pkcs11Source {
    /// The token of this setup.
    pub fn new(setup: Pkcs11Setup, clock: Arc<dyn Clock>) -> Self {
        Self { setup, clock }
    }

    fn what(&self) -> String {
        format!("token {} (serial number {})", self.setup.token.label, self.setup.token.serial)
    }

    fn module(&self) -> Result<String, SourceError> {
        let path = &self.setup.module;
        // Whoever may write the module is the token, as far as anybody can tell.
        Trusted::check_library(path)?;
        let printable = |text: &&str| text.bytes().all(|b| matches!(b, b' '..=b'~'));
        path.to_str().filter(printable).map(str::to_owned).ok_or_else(|| SourceError::NotTrusted {
            path: path.display().to_string(),
            defect: "its path has characters that are not printable ASCII".into(),
        })
    }

    /// Starts the helper for one request.
    fn ask(&self, request: &Request, deadline: Deadline) -> Result<Reply, SourceError> {
        let helper = Trusted::open(&self.setup.helper)?;
        let asked = Asked { env: &self.setup.env, input: Some(request.to_bytes()), deadline };
        let output = process::run(&helper, asked, &*self.clock)?;
        let reply = Reply::parse(&output).map_err(|e| SourceError::Protocol {
            what: self.setup.helper.display().to_string(),
            defect: e.to_string(),
        })?;
        match reply {
            Reply::Refused { refusal, detail } => Err(self.refused(refusal, detail)),
            reply => Ok(reply),
        }
    }

    fn refused(&self, refusal: Refusal, detail: String) -> SourceError {
        let what = self.what();
        match refusal {
            Refusal::Module => SourceError::BadModule { path: self.setup.module.display().to_string(), defect: detail },
            Refusal::NoToken => SourceError::NotPresent { what },
            Refusal::OtherToken => SourceError::WrongDevice {
                what: format!("the token {}", self.setup.token.label),
                found: detail,
                expected: self.setup.token.serial.clone(),
            },
            Refusal::NoPin => SourceError::NoPin { what, source: super::AuthError::NobodyToAsk },
            Refusal::FewTries => SourceError::FewTries { what },
            Refusal::WrongPin => SourceError::AuthFailed { what, tries_left: None },
            Refusal::Locked => SourceError::LockedOut { what },
            Refusal::NoKey => {
                SourceError::WrongDevice { what, found: "no such key".into(), expected: "its key".into() }
            }
            Refusal::Drifts => SourceError::Drifts { what },
            Refusal::NoMode | Refusal::WeakKey => SourceError::PolicyEmpty { defect: format!("{what}: {detail}") },
            Refusal::Failed => SourceError::Unreachable { what, defect: detail },
            Refusal::Request => SourceError::Protocol { what, defect: detail },
        }
    }

    /// An answer to something else than was asked.
    fn astray(&self) -> SourceError {
        let what = self.setup.helper.display().to_string();
        SourceError::Protocol { what, defect: "it answers another question than the one it was asked".into() }
    }

    fn pin(&self, wanted: bool, auth: &dyn Auth) -> Result<Option<SecretBytes>, SourceError> {
        if !wanted {
            return Ok(None);
        }
        let what = self.what();
        let pin = auth.pin(&AuthRequest { what: &what, tries_left: None });
        pin.map(Some).map_err(|source| SourceError::NoPin { what, source })
    }

    /// Has something done with a slot's key.
    fn with_key(
        &self,
        errand: Errand,
        token: &TokenKey,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Reply, SourceError> {
        let request = Request::With {
            errand,
            module: self.module()?,
            token: token.token.clone(),
            key: token.key.clone(),
            last_try: self.setup.danger_last_try,
            pin: self.pin(token.pin, auth)?,
        };
        self.ask(&request, deadline)
    }

    fn release_key(&self, token: &TokenKey, auth: &dyn Auth, deadline: Deadline) -> Result<Ikm, SourceError> {
        match self.with_key(Errand::Release, token, auth, deadline)? {
            Reply::Released { ikm } => self.ikm(ikm),
            _ => Err(self.astray()),
        }
    }

    fn destroy_key(&self, token: &TokenKey, auth: &dyn Auth, deadline: Deadline) -> Result<(), SourceError> {
        match self.with_key(Errand::Destroy, token, auth, deadline)? {
            Reply::Destroyed => Ok(()),
            _ => Err(self.astray()),
        }
    }

    fn ikm(&self, octets: SecretBytes) -> Result<Ikm, SourceError> {
        Ikm::new(octets, None).map_err(|source| SourceError::Ikm { what: self.what(), source })
    }
}

impl std::fmt::Debug for Pkcs11Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pkcs11Source({})", self.what())
    }
}

impl KeySource for Pkcs11Source {
    fn kind(&self) -> SourceKind {
        SourceKind::Pkcs11
    }

    /// The helper, the module and the PIN's file; the token is not asked.
    fn look(&self, _wish: Wanted, auth: &dyn Auth) -> Result<(), SourceError> {
        self.module()?;
        let what = self.what();
        auth.look(&AuthRequest { what: &what, tries_left: None })
            .map_err(|source| SourceError::NoPin { what, source })?;
        Trusted::open(&self.setup.helper).map(drop)
    }

    /// By label and serial number of the token.
    fn fits(&self, slot: &SlotPublic) -> Fit {
        Fit::by_name(TokenKey::from_slot(slot).is_ok_and(|key| key.token == self.setup.token))
    }

    fn tries_pin(&self, slot: &SlotPublic) -> bool {
        TokenKey::from_slot(slot).is_ok_and(|key| key.pin)
    }

    /// A token can be carried to another machine: it is not bound to this one, and it counts nothing.
    fn capabilities(&self) -> Capabilities {
        Capabilities { pin: true, ..Capabilities::default() }
    }

    fn probe(&mut self, deadline: Deadline) -> Result<Evidence, SourceError> {
        let request = Request::Probe { module: self.module()?, token: self.setup.token.clone() };
        let Reply::Probed(TokenFacts { model, wants_pin, few_tries, modes }) = self.ask(&request, deadline)? else {
            return Err(self.astray());
        };
        let yes = |b| if b { "yes" } else { "no" }.to_owned();
        let modes: Vec<&str> = modes.into_iter().filter(|m| self.setup.wish.takes(*m)).map(ikm::Mode::name).collect();
        Ok(Evidence(vec![
            ("token", self.what()),
            ("model", model),
            ("wants a PIN", yes(wants_pin)),
            ("few tries left", yes(few_tries)),
            ("modes", modes.join(" ")),
        ]))
    }

    /// Has a key made or chosen in the token, and asks a second process for what the first one got.
    fn provision(
        &mut self,
        policy: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        policy.enforceable(SourceKind::Pkcs11, &self.capabilities())?;
        let request = Request::Provision {
            module: self.module()?,
            token: self.setup.token.clone(),
            wish: self.setup.wish,
            last_try: self.setup.danger_last_try,
            pin: self.pin(policy.pin, auth)?,
        };
        let Reply::Provisioned { key, ikm } = self.ask(&request, deadline)? else { return Err(self.astray()) };
        let made = TokenKey { token: self.setup.token.clone(), key, pin: policy.pin };
        let seen = self.ikm(ikm).and_then(|ikm| {
            let back = self.release_key(&made, auth, deadline)?;
            let public = made.to_slot().filter(|_| back.ct_eq(&ikm));
            let public = public.ok_or_else(|| SourceError::Drifts { what: self.what() })?;
            Ok(Provisioned { public, ikm })
        });
        // A wrong PIN is not tried once more for the sake of order.
        if let Err(e) = &seen
            && Key::is_ours(&made.key.id)
            && !matches!(e, SourceError::AuthFailed { .. } | SourceError::FewTries { .. })
            && let Err(e) = self.destroy_key(&made, auth, deadline)
        {
            tracing::warn!("a key that is of no use stays in {}: {}", self.what(), host::with_causes(&e));
        }
        seen
    }

    fn release(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        let token = TokenKey::from_slot(slot)?;
        if token.token != self.setup.token {
            return Err(SourceError::WrongDevice {
                what: "the token in [source]".into(),
                found: self.what(),
                expected: format!("token {} (serial number {})", token.token.label, token.token.serial),
            });
        }
        let ikm = self.release_key(&token, auth, deadline)?;
        let evidence = Evidence(vec![("token", self.what()), ("mode", token.key.mode.name().into())]);
        Ok(Released { ikm, evidence, remaining_this_boot: None })
    }

    /// The helper's end has logged out; the token answers whoever has its PIN.
    fn close(&mut self, _slot: &SlotPublic, _deadline: Deadline) -> Result<Closed, SourceError> {
        Ok(Closed::releases_on())
    }

    /// Destroys a key that was made for the slot. An owner's stays, and so does what another token has.
    fn discard(
        &mut self,
        slot: &SlotPublic,
        kept: &[&SlotPublic],
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<(), SourceError> {
        let token = TokenKey::from_slot(slot)?;
        let uses = |other: &&SlotPublic| {
            TokenKey::from_slot(other).is_ok_and(|other| other.token == token.token && other.key.id == token.key.id)
        };
        if token.token != self.setup.token || !Key::is_ours(&token.key.id) || kept.iter().any(uses) {
            return Ok(());
        }
        self.destroy_key(&token, auth, deadline)
    }

    fn left_of(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Left, SourceError> {
        let token = TokenKey::from_slot(slot)?;
        if token.token != self.setup.token {
            return Ok(Left::Copies(format!("{} is not the token of the slot, which was not asked", self.what())));
        }
        let (what, id) = (self.what(), hex::encode(&token.key.id));
        match self.with_key(Errand::Look, &token, auth, deadline)? {
            Reply::Looked { there: false } => Ok(Left::Nothing(format!("{what} has no key {id} any more"))),
            Reply::Looked { there: true } if Key::is_ours(&token.key.id) => {
                Ok(Left::Copies(format!("{what} has the key {id}")))
            }
            Reply::Looked { there: true } => Ok(Left::Copies(format!("{what} has the key {id}, which is its owner's"))),
            _ => Err(self.astray()),
        }
    }
}
