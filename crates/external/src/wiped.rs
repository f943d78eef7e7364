//! Text of an answer that is wiped after use.

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

#[derive(Default)]
pub(crate) struct Wiped(pub(crate) Zeroizing<String>);

impl<'de> Deserialize<'de> for Wiped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Zeroizing::new(String::deserialize(deserializer)?)))
    }
}
