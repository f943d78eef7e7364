//! A user and its password, as the store holds them.

use std::fmt;

use secret::{Password, PasswordError};
use serde::Deserialize;
use zeroize::Zeroizing;

/// What a service logs in with at a peer.
pub struct Login {
    user: String,
    password: Password,
}

impl Login {
    /// A user name of 1 to 256 bytes without NUL, and its password.
    ///
    /// # Errors
    /// [`LoginError::User`].
    pub fn new(user: &str, password: Password) -> Result<Self, LoginError> {
        let sound = !user.is_empty() && user.len() <= MAX_USER_BYTES && !user.contains('\0');
        if sound { Ok(Self { user: user.to_owned(), password }) } else { Err(LoginError::User) }
    }

    /// Reads `{"username": ..., "password": ...}`, as EdgeX keeps credentials; other fields are passed over.
    ///
    /// # Errors
    /// [`LoginError`], without the text.
    pub fn of_json(text: &[u8]) -> Result<Self, LoginError> {
        #[derive(Deserialize)]
        struct Shape {
            username: String,
            password: String,
        }
        let shape: Shape = serde_json::from_slice(text).map_err(|_| LoginError::Shape)?;
        let password = Zeroizing::new(shape.password);
        Self::new(&shape.username, Password::received(password)?)
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password, for the writer of a file that needs it.
    pub fn password(&self) -> &Password {
        &self.password
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?})", self.user)
    }
}

/// No user with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Not an object with both fields as text.
    #[error("the credential has no username and password of text")]
    Shape,
    /// A user name that no server takes.
    #[error("the credential's username is not 1 to 256 bytes without NUL")]
    User,
    /// A password that no server takes: an empty one above all.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

/// Longer than PostgreSQL's 63 and Mosquitto's usual names, short enough for a line.
const MAX_USER_BYTES: usize = 256;

/// A login of text, for the tests of the writers.
#[cfg(test)]
pub(super) fn login(user: &str, password: &str) -> Option<Login> {
    let password = Password::received(Zeroizing::new(password.into())).ok()?;
    Login::new(user, password).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edgexs_shape_is_read_and_never_printed() {
        let login = Login::of_json(br#"{"password":"p\"w\u0020","username":"u","more":1}"#).unwrap();
        assert_eq!((login.user(), login.password().expose()), ("u", "p\"w "));
        assert_eq!(format!("{login:?}"), "Login(\"u\")");
    }

    #[test]
    fn half_a_credential_is_none() {
        for (text, error) in [
            (&b"{}"[..], LoginError::Shape),
            (br#"{"username":"u"}"#, LoginError::Shape),
            (br#"{"username":"u","password":7}"#, LoginError::Shape),
            (b"{\"username\":\"u\",\"password\":\"\xff\"}", LoginError::Shape),
            (br#"{"username":"u","password":"\ud800"}"#, LoginError::Shape),
            (br#"{"username":"","password":"p"}"#, LoginError::User),
            (br#"{"username":"a\u0000b","password":"p"}"#, LoginError::User),
            (br#"{"username":"u","password":""}"#, LoginError::Password(PasswordError)),
            (br#"{"username":"u","password":"a\u0000b"}"#, LoginError::Password(PasswordError)),
        ] {
            assert_eq!(Login::of_json(text).err(), Some(error), "{}", String::from_utf8_lossy(text));
        }
    }
}
