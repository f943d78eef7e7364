//! The storage key as verbs: made from the owner's seed, which gives the same each time, or kept by the TPM, which is
//! quicker.

use crate::code::Refusal;
use crate::error::TpmError;
use crate::frame::{CommandCode, Shape};
use crate::public::{KEPT_AT, KeptKey, Name, PinnedKey, StorageKey, storage_template};
use crate::tpm::{RH_OWNER, Tpm, code};
use crate::wire::{Reader, Writer};

impl Tpm {
    /// Makes the storage key from the owner's seed: the same each time, until the TPM is cleared.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn storage_key(&mut self) -> Result<StorageKey, TpmError> {
        // inSensitive with neither value nor data; outsideInfo empty; no registers noted in the creation data.
        let parameters = Writer::new().sized(&[0; 4]).sized(&storage_template()).sized(&[]).u32(0).done();
        let shape = Shape { handle: true, authorised: true };
        let done = self.with_password(CREATE_PRIMARY, &[RH_OWNER], shape, &parameters)?;
        let handle = self.hold(CREATE_PRIMARY, done.handle)?;
        Reader::new(&done.parameters)
            .sized()
            .and_then(|area| StorageKey::read(handle, area))
            .map_err(CREATE_PRIMARY.malformed())
    }

    /// The storage key, if it is the one of that name.
    ///
    /// # Errors
    /// [`TpmError::OtherKey`]: another TPM, one that was cleared, or somebody in between.
    pub fn pinned_storage_key(&mut self, expected: &Name) -> Result<PinnedKey, TpmError> {
        self.storage_key()?.pinned(expected).map_err(|found| TpmError::OtherKey { expected: *expected, found })
    }

    /// Has the TPM keep the storage key, so that it need not be made each time: on a chip that takes some tenths of a
    /// second. `None` where there is no room, or another key is there; nothing is taken away.
    ///
    /// # Errors
    /// [`TpmError`], but for a refusal.
    pub fn keep(&mut self, key: &PinnedKey) -> Result<Option<KeptKey>, TpmError> {
        let kept = key.kept();
        match self.name_of_kept() {
            Ok(name) => return Ok((name == key.name()).then_some(kept)),
            Err(e) if e.refusal() == Some(Refusal::Handle) => {}
            Err(e) => return Err(e),
        }
        let parameters = KEPT_AT.to_be_bytes();
        match self.with_password(EVICT_CONTROL, &[RH_OWNER, key.handle()], Shape::default(), &parameters) {
            Err(e) if e.refusal().is_some() => Ok(None),
            done => done.map(|_| Some(kept)),
        }
    }

    /// Whether the TPM keeps this key. Not authenticated: a session with it shows.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn keeps(&mut self, key: &KeptKey) -> Result<bool, TpmError> {
        match self.name_of_kept() {
            Err(e) if e.refusal() == Some(Refusal::Handle) => Ok(false),
            name => name.map(|name| name == key.key().name()),
        }
    }

    fn name_of_kept(&mut self) -> Result<Name, TpmError> {
        let done = self.plain(READ_PUBLIC, &[KEPT_AT], &[])?;
        let mut r = Reader::new(&done.parameters);
        let mut read = || {
            let name = Name::of(r.sized()?);
            let (_claimed, _qualified) = (r.sized()?, r.sized()?);
            r.end()?;
            Ok(name)
        };
        read().map_err(READ_PUBLIC.malformed())
    }

    /// Lets the storage key go when nothing more is to be loaded under it: a TPM may have room for three objects.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn let_go(&mut self, key: PinnedKey) -> Result<(), TpmError> {
        if key.is_kept() { Ok(()) } else { self.release(key.handle()) }
    }
}

const CREATE_PRIMARY: CommandCode = code("CreatePrimary", 0x131);
const READ_PUBLIC: CommandCode = code("ReadPublic", 0x173);
const EVICT_CONTROL: CommandCode = code("EvictControl", 0x120);
