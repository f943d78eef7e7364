//! Sealed objects: made, loaded, and given back under their policy.

use secret::SecretBytes;
use zeroize::Zeroizing;

use super::{Done, Entity, Tpm, code};
use crate::error::TpmError;
use crate::frame::{CommandCode, Shape};
use crate::policy::PolicyDigest;
use crate::public::{AuthValue, Name, PinnedKey, SealedObject, sealed_template};
use crate::session::{Session, Use};
use crate::wire::{Malformed, Reader, Writer};

/// An object that is loaded.
#[derive(Debug)]
pub struct Loaded {
    handle: u32,
    name: Name,
}

impl Tpm {
    /// Seals `secret` to `policy`, and to `pin` if there is one. Neither crosses the bus in clear.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn seal(
        &mut self,
        key: &PinnedKey,
        policy: &PolicyDigest,
        pin: Option<&AuthValue>,
        secret: &[u8],
    ) -> Result<SealedObject, TpmError> {
        let mut session = self.hmac_session(key)?;
        let value = pin.map_or(&[][..], AuthValue::expose);
        let sensitive = Writer::new().sized(value).sized(secret).done();
        let mut parameters =
            Writer::new().sized(&sensitive).sized(&sealed_template(&policy.0, pin.is_some())).sized(&[]).u32(0).done();
        let how = Use { encrypt_command: true, ..Use::default() };
        let name = key.name();
        let parent = [Entity::Named(key.handle(), &name)];
        let done = self.in_session(CREATE, &parent, &mut session, &[], how, &mut parameters)?;
        let mut r = Reader::new(&done.parameters);
        let mut read = || Ok(SealedObject { private: r.sized()?.to_vec(), public: r.sized()?.to_vec() });
        read().map_err(CREATE.malformed())
    }

    /// Loads a sealed object under the key that it was made under. The answer proves the session: that it was salted to
    /// a key which this TPM has, and so that no PIN that is proven in it is proven to anybody else.
    ///
    /// # Errors
    /// [`TpmError`]; [`Refusal::Integrity`] if it was made by another TPM or changed; [`Refusal::Auth`] where another
    /// key is at the handle of `key`.
    pub fn load(&mut self, key: &PinnedKey, object: &SealedObject, session: &mut Session) -> Result<Loaded, TpmError> {
        let mut parameters = Writer::new().sized(&object.private).sized(&object.public).done();
        let name = key.name();
        let done = self.beside_password(LOAD, Entity::Named(key.handle(), &name), session, &mut parameters)?;
        self.loaded(object, done)
    }

    /// As [`Tpm::load`], for a try: nothing is proven.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn try_load(&mut self, key: &PinnedKey, object: &SealedObject) -> Result<Loaded, TpmError> {
        let parameters = Writer::new().sized(&object.private).sized(&object.public).done();
        let shape = Shape { handle: true, authorised: true };
        let done = self.with_password(LOAD, &[key.handle()], shape, &parameters)?;
        self.loaded(object, done)
    }

    fn loaded(&mut self, object: &SealedObject, done: Done) -> Result<Loaded, TpmError> {
        // The name is ours, by the public area that we sent: should another object have been loaded in its place, the
        // session of the next command does not fit it.
        let loaded = Loaded { handle: self.hold(LOAD, done.handle)?, name: object.name() };
        let named = Reader::new(&done.parameters).sized().map_err(LOAD.malformed())?;
        if named == loaded.name.as_bytes() { Ok(loaded) } else { Err(LOAD.malformed()(Malformed("another name"))) }
    }

    /// Gives back what was sealed, and ends the session. The secret crosses the bus encrypted; an answer that the TPM
    /// did not make is refused.
    ///
    /// # Errors
    /// [`Refusal::Policy`], [`Refusal::Condition`], [`Refusal::PcrChanged`], [`Refusal::Auth`], [`Refusal::Lockout`];
    /// [`TpmError::NotAuthentic`].
    pub fn unseal(
        &mut self,
        mut session: Session,
        object: &Loaded,
        pin: Option<&AuthValue>,
    ) -> Result<SecretBytes, TpmError> {
        let sealed = [Entity::Named(object.handle, &object.name)];
        let how = Use { encrypt_answer: true, ..Use::default() };
        let value = pin.map_or(&[][..], AuthValue::expose);
        let done = self.in_session(UNSEAL, &sealed, &mut session, value, how, &mut Zeroizing::default())?;
        let mut r = Reader::new(&done.parameters);
        let secret = r.sized().map_err(UNSEAL.malformed())?;
        r.end().map_err(UNSEAL.malformed())?;
        Ok(SecretBytes::new(secret.to_vec()))
    }
}

const CREATE: CommandCode = code("Create", 0x153);
const LOAD: CommandCode = code("Load", 0x157);
const UNSEAL: CommandCode = code("Unseal", 0x15E);
