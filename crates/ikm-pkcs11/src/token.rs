//! Finding the token and logging in to it, once.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use ikm::{Mode, Refusal, TokenFacts, TokenName};
use secret::SecretBytes;

/// Why nothing is given, and what was said.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) detail: String,
}

impl Refused {
    pub(crate) fn new(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self { refusal, detail: detail.into() }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let refusal = match &error {
            Error::LibraryLoading(_) | Error::MissingSymbol(_) => Refusal::Module,
            Error::Pkcs11(RvError::TokenNotPresent | RvError::TokenNotRecognized | RvError::DeviceRemoved, _) => {
                Refusal::NoToken
            }
            _ => Refusal::Failed,
        };
        Self::new(refusal, error.to_string())
    }
}

/// The token that was named.
pub(crate) struct Token {
    context: Pkcs11,
    slot: Slot,
    info: TokenInfo,
}

impl Token {
    /// Loads the module and finds the token by label and serial number: slots are numbered anew at every start.
    pub(crate) fn open(module: &str, name: &TokenName) -> Result<Self, Refused> {
        let context = Pkcs11::new(module)?;
        context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let mut other = None;
        for slot in context.get_slots_with_token()? {
            // A reader whose card is being pulled out is no reason to overlook the next one.
            let Ok(info) = context.get_token_info(slot) else { continue };
            if info.label().trim_end() != name.label {
                continue;
            }
            if info.serial_number().trim_end() == name.serial {
                return Ok(Self { context, slot, info });
            }
            other = Some(info.serial_number().trim_end().to_owned());
        }
        Err(match other {
            Some(serial) => Refused::new(Refusal::OtherToken, serial),
            None => Refused::new(Refusal::NoToken, format!("no token `{}` is in a reader", name.label)),
        })
    }

    /// What it says of itself, without logging in.
    pub(crate) fn facts(&self) -> Result<TokenFacts, Refused> {
        let printable = |text: &str| text.trim_end().chars().filter(|c| matches!(c, ' '..='~')).collect::<String>();
        Ok(TokenFacts {
            model: format!("{} {}", printable(self.info.manufacturer_id()), printable(self.info.model())),
            wants_pin: self.info.login_required(),
            few_tries: self.few_tries(),
            modes: self.modes()?,
        })
    }

    /// The modes that its list of mechanisms allows.
    pub(crate) fn modes(&self) -> Result<Vec<Mode>, Refused> {
        let can = self.context.get_mechanism_list(self.slot)?;
        let needs = |mode| match mode {
            Mode::Hmac => [MechanismType::SHA256_HMAC, MechanismType::GENERIC_SECRET_KEY_GEN],
            Mode::RsaOaepSha256 | Mode::RsaOaepSha1 => [MechanismType::RSA_PKCS_OAEP, MechanismType::RSA_PKCS_OAEP],
            Mode::RsaPkcs1 => [MechanismType::RSA_PKCS, MechanismType::RSA_PKCS],
            Mode::AesUnwrap => [MechanismType::AES_KEY_WRAP, MechanismType::AES_KEY_GEN],
        };
        Ok(Mode::ALL.into_iter().filter(|mode| needs(*mode).iter().all(|m| can.contains(m))).collect())
    }

    fn few_tries(&self) -> bool {
        self.info.user_pin_count_low() || self.info.user_pin_final_try()
    }

    /// Opens a session, and logs in where the token wants it: one try, and none where few are left, so that no restart
    /// loop with a wrong PIN in a file can lock the token for good.
    pub(crate) fn log_in(self, writing: bool, pin: Option<SecretBytes>, last_try: bool) -> Result<Session, Refused> {
        let session = match writing {
            true => self.context.open_rw_session(self.slot)?,
            false => self.context.open_ro_session(self.slot)?,
        };
        if !self.info.login_required() {
            return Ok(session);
        }
        if self.info.user_pin_locked() {
            return Err(Refused::new(Refusal::Locked, "the token says that its PIN is locked"));
        }
        if self.few_tries() && !last_try && host::in_force("pin-tries-kept") {
            return Err(Refused::new(Refusal::FewTries, "the token says that few tries are left"));
        }
        let pin = pin.ok_or_else(|| Refused::new(Refusal::NoPin, "the token wants a PIN"))?;
        let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        match session.login_with_raw(UserType::User, &pin) {
            Ok(()) => Ok(session),
            Err(Error::Pkcs11(
                error @ (RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange | RvError::PinExpired),
                _,
            )) => Err(Refused::new(Refusal::WrongPin, format!("{error:?}"))),
            Err(Error::Pkcs11(error @ RvError::PinLocked, _)) => {
                Err(Refused::new(Refusal::Locked, format!("{error:?}")))
            }
            Err(error) => Err(error.into()),
        }
    }
}
