//! Decryption with an RSA key of the token: key material is random, encrypted to the key, and kept in the slot.

use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use host::Entropy;
use ikm::{Key, Mode, Refusal};
use secret::SecretBytes;

use super::{IKM_BYTES, LABEL, discard, find, new_id, random, stays_inside};
use crate::token::Refused;

/// A pair of keys, and whether it was made just now.
struct Pair {
    private: ObjectHandle,
    public: ObjectHandle,
    id: Vec<u8>,
    new: bool,
}

pub(super) fn provision(
    session: &Session,
    modes: &[Mode],
    entropy: &dyn Entropy,
) -> Result<(Key, SecretBytes), Refused> {
    let pair = match present(session)? {
        Some(pair) => pair,
        None => generate(session, entropy)?,
    };
    let ikm = SecretBytes::new(random::<IKM_BYTES>(entropy));
    let mut last = Refused::new(Refusal::NoMode, "no padding that the token knows serves");
    for mode in modes {
        match there_and_back(session, &pair, *mode, &ikm) {
            Ok(data) => return Ok((Key { mode: *mode, id: pair.id, data }, ikm)),
            Err(refused) => last = refused,
        }
    }
    if pair.new {
        discard(session, &[pair.private, pair.public]);
    }
    Err(last)
}

/// Encrypts to the key, and sees that it decrypts.
fn there_and_back(session: &Session, pair: &Pair, mode: Mode, ikm: &SecretBytes) -> Result<Vec<u8>, Refused> {
    let data = session.encrypt(&mechanism(mode), pair.public, ikm.expose())?;
    let back = release(session, pair.private, mode, &data)?;
    if secret::crypto::ct_eq(back.expose(), ikm.expose()) {
        return Ok(data);
    }
    Err(Refused::new(Refusal::Drifts, "the key did not decrypt what was encrypted to it"))
}

pub(super) fn release(
    session: &Session,
    object: ObjectHandle,
    mode: Mode,
    data: &[u8],
) -> Result<SecretBytes, Refused> {
    Ok(SecretBytes::new(session.decrypt(&mechanism(mode), object, data)?))
}

/// A pair that is there already and may decrypt: on a PIV card its owner has made it. The first that never left the
/// token. One that was made for another slot goes when that slot does, and is not taken.
fn present(session: &Session) -> Result<Option<Pair>, Refused> {
    let wanted = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Token(true),
        Attribute::Decrypt(true),
    ];
    let mut weak = None;
    for private in session.find_objects(&wanted)? {
        let id = session.get_attributes(private, &[AttributeType::Id])?.into_iter().find_map(|a| match a {
            Attribute::Id(id) if (1..=Key::MAX_ID_BYTES).contains(&id.len()) && !Key::is_ours(&id) => Some(id),
            _ => None,
        });
        let Some(id) = id else { continue };
        let Ok(public) = find(session, ObjectClass::PUBLIC_KEY, &id) else { continue };
        match stays_inside(session, private) {
            Ok(()) => return Ok(Some(Pair { private, public, id, new: false })),
            Err(refused) => weak = Some(refused),
        }
    }
    // Where a card has but one key and that one is weak, its owner should hear it.
    match weak {
        Some(refused) => Err(refused),
        None => Ok(None),
    }
}

/// A pair of 3072 bits (SP 800-57 part 1: as strong as 128), or of 2048 where the token knows no more.
fn generate(session: &Session, entropy: &dyn Entropy) -> Result<Pair, Refused> {
    let id = new_id(entropy);
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Decrypt(true),
        Attribute::Label(LABEL.to_vec()),
        Attribute::Id(id.clone()),
    ];
    let make = |bits: Ulong| {
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Encrypt(true),
            Attribute::ModulusBits(bits),
            Attribute::PublicExponent(vec![1, 0, 1]),
            Attribute::Label(LABEL.to_vec()),
            Attribute::Id(id.clone()),
        ];
        session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private)
    };
    let (public, private) = make(3072.into()).or_else(|_| make(2048.into()))?;
    match stays_inside(session, private) {
        Ok(()) => Ok(Pair { private, public, id, new: true }),
        Err(refused) => {
            discard(session, &[private, public]);
            Err(refused)
        }
    }
}

fn mechanism(mode: Mode) -> Mechanism<'static> {
    let oaep = |hash, mgf| Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty()));
    match mode {
        Mode::RsaOaepSha256 => oaep(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        Mode::RsaOaepSha1 => oaep(MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
        _ => Mechanism::RsaPkcs,
    }
}
