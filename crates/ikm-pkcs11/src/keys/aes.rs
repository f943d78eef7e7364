//! Key unwrapping with an AES key of the token (RFC 3394): key material is random, wrapped by the key, and kept in the
//! slot.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use host::Entropy;
use ikm::{Key, Mode, Refusal};
use secret::SecretBytes;

use super::{IKM_BYTES, LABEL, discard, new_id, random, stays_inside};
use crate::token::Refused;

pub(super) fn provision(session: &Session, entropy: &dyn Entropy) -> Result<(Key, SecretBytes), Refused> {
    let id = new_id(entropy);
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
        Attribute::ValueLen(32.into()),
        Attribute::Label(LABEL.to_vec()),
        Attribute::Id(id.clone()),
    ];
    let object = session.generate_key(&Mechanism::AesKeyGen, &template)?;
    let ikm = SecretBytes::new(random::<IKM_BYTES>(entropy));
    let made = stays_inside(session, object).and_then(|()| wrap(session, object, &ikm));
    match made {
        Ok(data) => Ok((Key { mode: Mode::AesUnwrap, id, data }, ikm)),
        Err(refused) => {
            discard(session, &[object]);
            Err(refused)
        }
    }
}

pub(super) fn release(session: &Session, object: ObjectHandle, data: &[u8]) -> Result<SecretBytes, Refused> {
    let key = session.unwrap_key(&Mechanism::AesKeyWrap, object, data, &passing())?;
    let value = session.get_attributes(key, &[AttributeType::Value])?.into_iter().find_map(|a| match a {
        Attribute::Value(value) => Some(SecretBytes::new(value)),
        _ => None,
    });
    session.destroy_object(key)?;
    value.ok_or_else(|| Refused::new(Refusal::Failed, "the unwrapped key has no value"))
}

/// Puts the key material into the session for a moment, as a key that may be wrapped.
fn wrap(session: &Session, object: ObjectHandle, ikm: &SecretBytes) -> Result<Vec<u8>, Refused> {
    let mut template = passing().to_vec();
    template.push(Attribute::Value(ikm.expose().to_vec()));
    let key = session.create_object(&template);
    if let Some(Attribute::Value(value)) = template.last_mut() {
        zeroize::Zeroize::zeroize(value);
    }
    let key = key?;
    let wrapped = session.wrap_key(&Mechanism::AesKeyWrap, object, key);
    session.destroy_object(key)?;
    Ok(wrapped?)
}

/// A key of the session alone, which may be read.
fn passing() -> [Attribute; 6] {
    [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}
