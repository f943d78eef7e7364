//! Keys in the token, and how each mode comes to key material with one. No key ever leaves its token: that is checked.

mod aes;
mod hmac;
mod rsa;

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use host::Entropy;
use ikm::{Key, Mode, Refusal};
use secret::SecretBytes;

use crate::token::Refused;

/// Makes or chooses a key for the first of `modes` that the token not only names but does, and key material with it: a
/// token's list of mechanisms promises more than its firmware keeps.
pub(crate) fn provision(
    session: &Session,
    modes: &[Mode],
    entropy: &dyn Entropy,
) -> Result<(Key, SecretBytes), Refused> {
    let of = |family: fn(&Mode) -> bool| modes.iter().copied().filter(family).collect::<Vec<_>>();
    let rsa = of(|m| matches!(m, Mode::RsaOaepSha256 | Mode::RsaOaepSha1 | Mode::RsaPkcs1));
    let mut last = Refused::new(Refusal::NoMode, "no mechanism of the token serves");
    for family in [of(|m| *m == Mode::Hmac), rsa, of(|m| *m == Mode::AesUnwrap)] {
        let made = match family[..] {
            [] => continue,
            [Mode::Hmac] => hmac::provision(session, entropy),
            [Mode::AesUnwrap] => aes::provision(session, entropy),
            // One key, and the best padding that works with it: a token takes seconds to make another.
            _ => rsa::provision(session, &family, entropy),
        };
        match made {
            Ok(made) => return Ok(made),
            Err(refused) => last = refused,
        }
    }
    Err(last)
}

/// Gives the key material.
pub(crate) fn release(session: &Session, key: &Key) -> Result<SecretBytes, Refused> {
    let class = match key.mode {
        Mode::Hmac | Mode::AesUnwrap => ObjectClass::SECRET_KEY,
        Mode::RsaOaepSha256 | Mode::RsaOaepSha1 | Mode::RsaPkcs1 => ObjectClass::PRIVATE_KEY,
    };
    let object = find(session, class, &key.id)?;
    stays_inside(session, object)?;
    let ikm = match key.mode {
        Mode::Hmac => hmac::release(session, object, &key.data)?,
        Mode::RsaOaepSha256 | Mode::RsaOaepSha1 | Mode::RsaPkcs1 => rsa::release(session, object, key.mode, &key.data)?,
        Mode::AesUnwrap => aes::release(session, object, &key.data)?,
    };
    if ikm.len() == IKM_BYTES {
        Ok(ikm)
    } else {
        Err(Refused::new(Refusal::Drifts, format!("the key gave {} bytes and not 32", ikm.len())))
    }
}

/// Destroys what was made for a slot; that it is gone already is as good. An owner's key is never touched, whatever is
/// asked.
pub(crate) fn destroy(session: &Session, id: &[u8]) -> Result<(), Refused> {
    if !Key::is_ours(id) && host::in_force("owners-keys-stay") {
        return Err(Refused::new(Refusal::NoKey, "the key was not made for a slot: it is its owner's"));
    }
    for object in of_id(session, id)? {
        session.destroy_object(object)?;
    }
    match of_id(session, id)?[..] {
        [] => Ok(()),
        _ => Err(Refused::new(Refusal::Failed, "the token still has the key after it was destroyed")),
    }
}

/// All objects of that id: a secret key, or both halves of a pair.
pub(crate) fn of_id(session: &Session, id: &[u8]) -> Result<Vec<ObjectHandle>, Refused> {
    Ok(session.find_objects(&[Attribute::Token(true), Attribute::Id(id.to_vec())])?)
}

/// The one object of that class and id.
fn find(session: &Session, class: ObjectClass, id: &[u8]) -> Result<ObjectHandle, Refused> {
    let found = session.find_objects(&[Attribute::Class(class), Attribute::Id(id.to_vec())])?;
    match found[..] {
        [one] => Ok(one),
        [] => Err(Refused::new(Refusal::NoKey, "the key is not in the token")),
        _ => Err(Refused::new(Refusal::NoKey, format!("{} keys have the same id", found.len()))),
    }
}

/// Whether the key was made in the token, never could leave it and never will (PKCS #11, 4.9: CKA_LOCAL,
/// CKA_NEVER_EXTRACTABLE, CKA_SENSITIVE). Elsewhere there may be a copy of any other key.
fn stays_inside(session: &Session, key: ObjectHandle) -> Result<(), Refused> {
    let asked = [AttributeType::Sensitive, AttributeType::NeverExtractable, AttributeType::Local];
    let said = session.get_attributes(key, &asked)?;
    let all = [Attribute::Sensitive(true), Attribute::NeverExtractable(true), Attribute::Local(true)];
    let missing: Vec<_> = asked.iter().zip(&all).filter(|(_, a)| !said.contains(a)).map(|(name, _)| name).collect();
    if missing.is_empty() || !host::in_force("token-keys-stay-inside") {
        return Ok(());
    }
    Err(Refused::new(Refusal::WeakKey, format!("the key lacks {missing:?}")))
}

/// Undoes a key that turned out to be of no use.
fn discard(session: &Session, objects: &[ObjectHandle]) {
    for object in objects {
        if let Err(e) = session.destroy_object(*object) {
            eprintln!("ikm-pkcs11: a key that is of no use stays in the token: {e}");
        }
    }
}

fn random<const N: usize>(entropy: &dyn Entropy) -> Vec<u8> {
    let mut bytes = vec![0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// The id of a key that is about to be made.
fn new_id(entropy: &dyn Entropy) -> Vec<u8> {
    let mut random = [0; 8];
    entropy.fill(&mut random);
    Key::id_of_ours(random)
}

/// The name that our keys have in the token, for whoever looks into it.
const LABEL: &[u8] = b"edgekeep";
const IKM_BYTES: usize = 32;
