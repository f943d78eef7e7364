//! HMAC-SHA-256 in the token over our label and a salt. Nothing secret is outside, not even encrypted.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use host::Entropy;
use ikm::{Key, Mode};
use secret::SecretBytes;

use super::{IKM_BYTES, LABEL, discard, new_id, random, stays_inside};
use crate::token::Refused;

pub(super) fn provision(session: &Session, entropy: &dyn Entropy) -> Result<(Key, SecretBytes), Refused> {
    let id = new_id(entropy);
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::ValueLen(32.into()),
        Attribute::Label(LABEL.to_vec()),
        Attribute::Id(id.clone()),
    ];
    let object = session.generate_key(&Mechanism::GenericSecretKeyGen, &template)?;
    let salt = random::<IKM_BYTES>(entropy);
    let made = stays_inside(session, object).and_then(|()| release(session, object, &salt));
    match made {
        Ok(ikm) => Ok((Key { mode: Mode::Hmac, id, data: salt }, ikm)),
        Err(refused) => {
            discard(session, &[object]);
            Err(refused)
        }
    }
}

pub(super) fn release(session: &Session, object: ObjectHandle, salt: &[u8]) -> Result<SecretBytes, Refused> {
    let text = [MESSAGE, salt].concat();
    Ok(SecretBytes::new(session.sign(&Mechanism::Sha256Hmac, object, &text)?))
}

/// What the token is asked to authenticate begins so, and nothing else that a token is asked for does.
const MESSAGE: &[u8] = b"edgekeep/v1/pkcs11-hmac";
