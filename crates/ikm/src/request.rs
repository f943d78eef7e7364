//! What edgekeep asks of its helper.

use secret::SecretBytes;
use zeroize::Zeroizing;

use crate::lines::{Lines, MessageError, Writer};

/// How the key in the token is used to come to key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// HMAC-SHA-256 in the token over a salt: nothing is kept but the salt.
    Hmac,
    /// RSA decryption in the token, OAEP with SHA-256 (RFC 8017, 7.1).
    RsaOaepSha256,
    /// RSA decryption in the token, OAEP with SHA-1, which is all that many tokens know.
    RsaOaepSha1,
    /// RSA decryption in the token, PKCS #1 v1.5 (RFC 8017, 7.2): for PIV cards.
    RsaPkcs1,
    /// AES key unwrapping in the token (RFC 3394).
    AesUnwrap,
}

impl Mode {
    /// All of them, the best first.
    pub const ALL: [Self; 5] = [Self::Hmac, Self::RsaOaepSha256, Self::RsaOaepSha1, Self::RsaPkcs1, Self::AesUnwrap];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hmac => "hmac",
            Self::RsaOaepSha256 => "rsa-oaep-sha256",
            Self::RsaOaepSha1 => "rsa-oaep-sha1",
            Self::RsaPkcs1 => "rsa-pkcs1",
            Self::AesUnwrap => "aes-unwrap",
        }
    }

    /// Its number in slots.
    pub fn number(self) -> u8 {
        match self {
            Self::Hmac => 1,
            Self::RsaOaepSha256 => 2,
            Self::RsaOaepSha1 => 3,
            Self::RsaPkcs1 => 4,
            Self::AesUnwrap => 5,
        }
    }

    /// The mode of that number.
    pub fn from_number(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.number() == n)
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// Which modes a provisioning may choose among.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// The best that the token can do.
    #[default]
    Any,
    /// HMAC.
    Hmac,
    /// RSA, with the best padding that works.
    Rsa,
    /// AES key unwrapping.
    Aes,
}

impl Wish {
    /// Its name, in messages and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Hmac => "hmac",
            Self::Rsa => "rsa",
            Self::Aes => "aes",
        }
    }

    /// The wish of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Any, Self::Hmac, Self::Rsa, Self::Aes].into_iter().find(|w| w.name() == name)
    }

    /// Whether it takes that mode.
    pub fn takes(self, mode: Mode) -> bool {
        match self {
            Self::Any => true,
            Self::Hmac => mode == Mode::Hmac,
            Self::Rsa => matches!(mode, Mode::RsaOaepSha256 | Mode::RsaOaepSha1 | Mode::RsaPkcs1),
            Self::Aes => mode == Mode::AesUnwrap,
        }
    }
}

/// A token by the two names that it has itself, without the blanks at their ends. Slot numbers change, these do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenName {
    /// CKA_LABEL of the token: 1 to 32 printable characters.
    pub label: String,
    /// Serial number: 1 to 16 printable characters.
    pub serial: String,
}

/// A key in a token, and what must be remembered to use it again. Public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// How it is used.
    pub mode: Mode,
    /// CKA_ID: 1 to 64 bytes.
    pub id: Vec<u8>,
    /// The salt, or what the key encrypted or wrapped: 1 to 1024 bytes.
    pub data: Vec<u8>,
}

impl Key {
    /// Most bytes of an id.
    pub const MAX_ID_BYTES: usize = 64;
    /// Most bytes of data: a block of RSA-8192.
    pub const MAX_DATA_BYTES: usize = 1024;

    /// The id of a key that is made for one slot: the random half, and a half that shows that it was chosen so. What
    /// has another id is its owner's, whatever its label.
    pub fn id_of_ours(random: [u8; 8]) -> Vec<u8> {
        let digest = secret::crypto::sha256(&[OURS, &random]);
        random.into_iter().chain(digest).take(2 * random.len()).collect()
    }

    /// Whether a key of this id was made for one slot, and goes with it.
    pub fn is_ours(id: &[u8]) -> bool {
        id.first_chunk().is_some_and(|random| Self::id_of_ours(*random) == id)
    }

    pub(crate) fn read(lines: &mut Lines<'_>) -> Result<Self, MessageError> {
        let mode = Mode::from_name(lines.text("mode")?).ok_or(MessageError::Value("mode"))?;
        let id = lines.bytes("key", Self::MAX_ID_BYTES)?;
        let data = lines.bytes("data", Self::MAX_DATA_BYTES)?;
        match (id.is_empty(), data.is_empty()) {
            (true, _) => Err(MessageError::Value("key")),
            (_, true) => Err(MessageError::Value("data")),
            _ => Ok(Self { mode, id, data }),
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.text("mode", self.mode.name()).bytes("key", &self.id).bytes("data", &self.data);
    }
}

/// What is to be done with a key that a slot names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Give the key material.
    Release,
    /// Say whether it is there.
    Look,
    /// Destroy it, if it was made for a slot ([`Key::is_ours`]).
    Destroy,
}

impl Errand {
    const ALL: [Self; 3] = [Self::Release, Self::Look, Self::Destroy];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Look => "look",
            Self::Destroy => "destroy",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|errand| errand.name() == name)
    }
}

/// One thing to be done.
#[derive(Debug)]
pub enum Request {
    /// Say what the token is, without logging in.
    Probe {
        /// The vendor's module: an absolute path.
        module: String,
        /// The token.
        token: TokenName,
    },
    /// Make or choose a key, and key material with it.
    Provision {
        /// The vendor's module: an absolute path.
        module: String,
        /// The token.
        token: TokenName,
        /// Among which modes.
        wish: Wish,
        /// Whether a PIN is tried though the token says that few tries are left.
        last_try: bool,
        /// The PIN, if the token wants one.
        pin: Option<SecretBytes>,
    },
    /// Do something with a key that is there.
    With {
        /// What.
        errand: Errand,
        /// The vendor's module: an absolute path.
        module: String,
        /// The token.
        token: TokenName,
        /// The key.
        key: Key,
        /// Whether a PIN is tried though the token says that few tries are left.
        last_try: bool,
        /// The PIN, if the token wants one.
        pin: Option<SecretBytes>,
    },
}

impl Request {
    /// Reads what [`Request::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let (verb, mut lines) = Lines::begin(message)?;
        let errand = Errand::from_name(verb);
        if errand.is_none() && !matches!(verb, "probe" | "provision") {
            return Err(MessageError::Verb);
        }
        let module = lines.text("module")?.to_owned();
        if !module.starts_with('/') {
            return Err(MessageError::Value("module"));
        }
        let token = TokenName { label: name(&mut lines, "label", 32)?, serial: name(&mut lines, "serial", 16)? };
        let request = match errand {
            None if verb == "probe" => Self::Probe { module, token },
            None => {
                let wish = Wish::from_name(lines.text("wish")?).ok_or(MessageError::Value("wish"))?;
                let last_try = lines.flag("last-try")?;
                Self::Provision { module, token, wish, last_try, pin: lines.secret("pin", MAX_PIN_BYTES)? }
            }
            Some(errand) => {
                let key = Key::read(&mut lines)?;
                let last_try = lines.flag("last-try")?;
                Self::With { errand, module, token, key, last_try, pin: lines.secret("pin", MAX_PIN_BYTES)? }
            }
        };
        lines.end()?;
        Ok(request)
    }

    /// The message.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let (verb, module, token) = match self {
            Self::Probe { module, token } => ("probe", module, token),
            Self::Provision { module, token, .. } => ("provision", module, token),
            Self::With { errand, module, token, .. } => (errand.name(), module, token),
        };
        let mut out = Writer::begin(verb);
        out.text("module", module).text("label", &token.label).text("serial", &token.serial);
        match self {
            Self::Probe { .. } => {}
            Self::Provision { wish, last_try, pin, .. } => {
                out.text("wish", wish.name()).flag("last-try", *last_try);
                if let Some(pin) = pin {
                    out.bytes("pin", pin.expose());
                }
            }
            Self::With { key, last_try, pin, .. } => {
                key.write(&mut out);
                out.flag("last-try", *last_try);
                if let Some(pin) = pin {
                    out.bytes("pin", pin.expose());
                }
            }
        }
        out.end()
    }
}

/// A name of 1 to `max` printable characters without blanks at its ends.
fn name(lines: &mut Lines<'_>, line: &'static str, max: usize) -> Result<String, MessageError> {
    let text = lines.text(line)?;
    let fits = !text.is_empty() && text.len() <= max && text.trim() == text;
    if fits { Ok(text.to_owned()) } else { Err(MessageError::Value(line)) }
}

const MAX_PIN_BYTES: usize = 255;
/// What the second half of our ids is a digest of, with the first.
const OURS: &[u8] = b"edgekeep/v1/pkcs11-id";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> TokenName {
        TokenName { label: "edge token".into(), serial: "9f1c".into() }
    }

    fn pin() -> Option<SecretBytes> {
        Some(SecretBytes::new(b"1234".to_vec()))
    }

    fn requests() -> Vec<Request> {
        let module = || "/usr/lib/softhsm/libsofthsm2.so".to_owned();
        let key = Key { mode: Mode::AesUnwrap, id: vec![7; 16], data: vec![8; 40] };
        let with = |errand| Request::With {
            errand,
            module: module(),
            token: token(),
            key: key.clone(),
            last_try: false,
            pin: pin(),
        };
        vec![
            Request::Probe { module: module(), token: token() },
            Request::Provision { module: module(), token: token(), wish: Wish::Rsa, last_try: true, pin: None },
            Request::Provision { module: module(), token: token(), wish: Wish::Any, last_try: false, pin: pin() },
            with(Errand::Release),
            with(Errand::Look),
            with(Errand::Destroy),
        ]
    }

    #[test]
    fn a_request_reads_what_it_writes() {
        for request in requests() {
            let bytes = request.to_bytes();
            assert_eq!(Request::parse(&bytes).unwrap().to_bytes(), bytes);
        }
    }

    #[test]
    fn an_id_of_ours_is_no_other() {
        let ours = Key::id_of_ours([7; 8]);
        assert_eq!(hex::encode(&ours), "070707070707070772f93a085d56e7e2");
        assert!(Key::is_ours(&ours));
        for other in [&[][..], &[7; 7], &[7; 16], &ours[..15], &[&ours[..], &[0]].concat(), b"0123456789abcdef"] {
            assert!(!Key::is_ours(other), "{other:?}");
        }
    }

    #[test]
    fn the_largest_request_fits() {
        let key = Key { mode: Mode::RsaPkcs1, id: vec![255; 64], data: vec![255; 1024] };
        let token = TokenName { label: "l".repeat(32), serial: "s".repeat(16) };
        let module = format!("/{}", "m".repeat(1023));
        let pin = Some(SecretBytes::new(vec![b'9'; 255]));
        let request = Request::With { errand: Errand::Release, module, token, key, last_try: true, pin };
        assert!(Request::parse(&request.to_bytes()).is_ok());
    }

    #[test]
    fn refusals_by_name() {
        let good = String::from_utf8(requests()[3].to_bytes().to_vec()).unwrap();
        let refused = |from: &str, to: &str| Request::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert_eq!(refused("edgekeep-pkcs11", "edgekeep-tpm"), MessageError::NotOurs);
        assert_eq!(refused("11 1 ", "11 2 "), MessageError::OtherVersion);
        assert_eq!(refused("release", "erase"), MessageError::Verb);
        assert_eq!(refused("module /", "module "), MessageError::Value("module"));
        assert_eq!(refused("label edge token", "label "), MessageError::Value("label"));
        assert_eq!(refused("label edge token", &format!("label {}", "x".repeat(33))), MessageError::Value("label"));
        assert_eq!(refused("serial 9f1c", "serial 9f1c "), MessageError::Value("serial"));
        assert_eq!(refused("mode aes-unwrap", "mode none"), MessageError::Value("mode"));
        assert_eq!(refused("key 07", "key 7"), MessageError::Value("key"));
        assert_eq!(refused("data 08", "data 0G"), MessageError::Value("data"));
        assert_eq!(refused("data 08", "date 08"), MessageError::Line("data"));
        assert_eq!(refused("last-try no", "last-try perhaps"), MessageError::Value("last-try"));
        assert_eq!(refused("pin 31323334\n", "pin \n"), MessageError::Value("pin"));
        assert_eq!(refused("end\n", "end"), MessageError::End);
        assert_eq!(refused("end\n", "end\nend\n"), MessageError::End);
        assert_eq!(refused("pin", "extra x\npin"), MessageError::End);
        assert_eq!(refused("edge token", "edge\u{7}token"), MessageError::Line("label"));
        assert_eq!(Request::parse(&[b'a'; 5000]).unwrap_err(), MessageError::TooLong);
        assert_eq!(Request::parse(b"").unwrap_err(), MessageError::NotOurs);
    }

    #[test]
    fn a_pin_is_not_printed() {
        assert!(
            !format!("{:?}", requests()[3]).contains("1234") && !format!("{:?}", requests()[3]).contains("31323334")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(junk: Vec<u8>, which in 0..6_usize, at: usize, byte: u8) {
            let _ = Request::parse(&junk);
            let mut near = requests()[which].to_bytes();
            let at = at % near.len();
            near[at] = byte;
            if let Ok(read) = Request::parse(&near) {
                prop_assert_eq!(&read.to_bytes()[..], &near[..], "one spelling each");
            }
        }
    }
}
