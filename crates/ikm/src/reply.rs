//! What the helper answers.

use secret::SecretBytes;
use zeroize::Zeroizing;

use crate::lines::{Lines, MessageError, Writer};
use crate::request::{Key, Mode};

/// What a token says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFacts {
    /// Its maker and model, as it says them.
    pub model: String,
    /// Whether it wants a PIN.
    pub wants_pin: bool,
    /// Whether few tries are left.
    pub few_tries: bool,
    /// Modes that its mechanisms allow, the best first.
    pub modes: Vec<Mode>,
}

/// Why nothing is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is none.
    Request,
    /// The module cannot be loaded, or is none.
    Module,
    /// No token of that label is there.
    NoToken,
    /// A token of that label is there, with another serial number.
    OtherToken,
    /// It wants a PIN, and none was given.
    NoPin,
    /// Few tries are left: none is spent.
    FewTries,
    /// The PIN is wrong. One try was spent.
    WrongPin,
    /// It takes no PIN any more.
    Locked,
    /// It can do none of the wanted modes.
    NoMode,
    /// The key is not there.
    NoKey,
    /// The key could leave the token, or was not made there.
    WeakKey,
    /// What comes back is not what was put in.
    Drifts,
    /// Anything else that the token said.
    Failed,
}

impl Refusal {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Request, "request"),
        (Self::Module, "module"),
        (Self::NoToken, "no-token"),
        (Self::OtherToken, "other-token"),
        (Self::NoPin, "no-pin"),
        (Self::FewTries, "few-tries"),
        (Self::WrongPin, "wrong-pin"),
        (Self::Locked, "locked"),
        (Self::NoMode, "no-mode"),
        (Self::NoKey, "no-key"),
        (Self::WeakKey, "weak-key"),
        (Self::Drifts, "drifts"),
        (Self::Failed, "failed"),
    ];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(r, _)| *r == self).map_or("failed", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(r, _)| *r)
    }
}

/// The helper's answer.
#[derive(Debug)]
pub enum Reply {
    /// To a probe.
    Probed(TokenFacts),
    /// To a provisioning: what must be remembered, and the key material.
    Provisioned {
        /// The key.
        key: Key,
        /// Key material: 32 bytes.
        ikm: SecretBytes,
    },
    /// To a release.
    Released {
        /// Key material: 32 bytes.
        ikm: SecretBytes,
    },
    /// To a look.
    Looked {
        /// Whether the key, or anything of it, is in the token.
        there: bool,
    },
    /// It is not in the token any more.
    Destroyed,
    /// Nothing is given.
    Refused {
        /// Why.
        refusal: Refusal,
        /// What the token or the system said, for the log: at most 200 printable characters.
        detail: String,
    },
}

impl Reply {
    /// A refusal; what cannot be printed in `detail` is left out, and so is what is over 200 characters.
    pub fn refused(refusal: Refusal, detail: &str) -> Self {
        let detail = detail.chars().filter(|c| matches!(c, ' '..='~')).take(MAX_DETAIL).collect();
        Self::Refused { refusal, detail }
    }

    /// Reads what [`Reply::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let (verb, mut lines) = Lines::begin(message)?;
        let reply = match verb {
            "probed" => Self::Probed(TokenFacts {
                model: short(&mut lines, "model")?,
                wants_pin: lines.flag("wants-pin")?,
                few_tries: lines.flag("few-tries")?,
                modes: modes(lines.text("modes")?)?,
            }),
            "provisioned" => Self::Provisioned { key: Key::read(&mut lines)?, ikm: ikm(&mut lines)? },
            "released" => Self::Released { ikm: ikm(&mut lines)? },
            "looked" => Self::Looked { there: lines.flag("there")? },
            "destroyed" => Self::Destroyed,
            "refused" => {
                let refusal = Refusal::from_name(lines.text("reason")?).ok_or(MessageError::Value("reason"))?;
                Self::Refused { refusal, detail: short(&mut lines, "detail")? }
            }
            _ => return Err(MessageError::Verb),
        };
        lines.end()?;
        Ok(reply)
    }

    /// The message.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out;
        match self {
            Self::Probed(facts) => {
                out = Writer::begin("probed");
                let modes: Vec<&str> = facts.modes.iter().map(|m| m.name()).collect();
                out.text("model", &facts.model).flag("wants-pin", facts.wants_pin);
                out.flag("few-tries", facts.few_tries).text("modes", &modes.join(" "));
            }
            Self::Provisioned { key, ikm } => {
                out = Writer::begin("provisioned");
                key.write(&mut out);
                out.bytes("ikm", ikm.expose());
            }
            Self::Released { ikm } => {
                out = Writer::begin("released");
                out.bytes("ikm", ikm.expose());
            }
            Self::Looked { there } => {
                out = Writer::begin("looked");
                out.flag("there", *there);
            }
            Self::Destroyed => out = Writer::begin("destroyed"),
            Self::Refused { refusal, detail } => {
                out = Writer::begin("refused");
                out.text("reason", refusal.name()).text("detail", detail);
            }
        }
        out.end()
    }
}

fn ikm(lines: &mut Lines<'_>) -> Result<SecretBytes, MessageError> {
    let ikm = lines.secret("ikm", IKM_BYTES)?.ok_or(MessageError::Line("ikm"))?;
    if ikm.len() == IKM_BYTES { Ok(ikm) } else { Err(MessageError::Value("ikm")) }
}

fn short(lines: &mut Lines<'_>, name: &'static str) -> Result<String, MessageError> {
    let text = lines.text(name)?;
    if text.len() <= MAX_DETAIL { Ok(text.to_owned()) } else { Err(MessageError::Value(name)) }
}

fn modes(text: &str) -> Result<Vec<Mode>, MessageError> {
    let names = text.split(' ').filter(|name| !name.is_empty());
    let modes: Option<Vec<Mode>> = names.map(Mode::from_name).collect();
    modes.filter(|m| m.len() <= Mode::ALL.len()).ok_or(MessageError::Value("modes"))
}

const IKM_BYTES: usize = 32;
const MAX_DETAIL: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replies() -> Vec<Reply> {
        let ikm = || SecretBytes::new((0..32).collect());
        let key = Key { mode: Mode::Hmac, id: vec![1; 16], data: vec![2; 32] };
        let modes = vec![Mode::Hmac, Mode::RsaPkcs1];
        vec![
            Reply::Probed(TokenFacts { model: "SoftHSM v2".into(), wants_pin: true, few_tries: false, modes }),
            Reply::Provisioned { key, ikm: ikm() },
            Reply::Released { ikm: ikm() },
            Reply::Looked { there: true },
            Reply::Destroyed,
            Reply::refused(Refusal::WrongPin, "C_Login: CKR_PIN_INCORRECT\n\u{1b}[2J"),
            Reply::refused(Refusal::Failed, &"x".repeat(500)),
        ]
    }

    #[test]
    fn a_reply_reads_what_it_writes() {
        for reply in replies() {
            let bytes = reply.to_bytes();
            assert_eq!(Reply::parse(&bytes).unwrap().to_bytes(), bytes);
        }
        for (refusal, name) in Refusal::ALL {
            assert_eq!((refusal.name(), Refusal::from_name(name)), (name, Some(refusal)));
        }
    }

    #[test]
    fn refusals_by_name() {
        let released = "edgekeep-pkcs11 1 released\n";
        let refused = |rest: &str| Reply::parse(format!("{released}{rest}").as_bytes()).unwrap_err();
        let ikm = "ab".repeat(32);
        assert_eq!(refused("end\n"), MessageError::Line("ikm"));
        assert_eq!(refused("ikm ab\nend\n"), MessageError::Value("ikm"));
        assert_eq!(refused(&format!("ikm {ikm}ab\nend\n")), MessageError::Value("ikm"));
        assert_eq!(refused(&format!("ikm {}\nend\n", ikm.to_uppercase())), MessageError::Value("ikm"));
        assert_eq!(refused(&format!("ikm {ikm}\n")), MessageError::End);
        assert_eq!(Reply::parse(ikm.as_bytes()).unwrap_err(), MessageError::NotOurs);
        assert_eq!(Reply::parse(b"edgekeep-pkcs11 1 sold\nend\n").unwrap_err(), MessageError::Verb);
        assert_eq!(
            Reply::parse(b"edgekeep-pkcs11 1 refused\nreason none\ndetail \nend\n").unwrap_err(),
            MessageError::Value("reason")
        );
    }

    #[test]
    fn key_material_is_not_printed() {
        assert!(!format!("{:?}", replies()[1]).contains("1, 2, 3"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(junk: Vec<u8>, which in 0..7_usize, at: usize, byte: u8) {
            let _ = Reply::parse(&junk);
            let mut near = replies()[which].to_bytes();
            let at = at % near.len();
            near[at] = byte;
            let _ = Reply::parse(&near);
        }
    }
}
