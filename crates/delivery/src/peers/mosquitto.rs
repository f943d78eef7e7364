//! Mosquitto: `mosquitto.conf` and its password file, which we write ourselves: `mosquitto_passwd -b` would show the
//! password to everybody who can list processes.
//!
//! A line is `user:$7$rounds$salt$hash`, of PBKDF2-HMAC-SHA-512 in base 64 (mosquitto_passwd(1), version 1.6 and
//! later). The reader splits at the first colon, trims the name, and skips lines that begin with `#`; nothing can be
//! escaped.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secret::crypto::pbkdf2_sha512;
use zeroize::Zeroizing;

use super::{Login, Unwritable, fitting, plain_path};

/// Random bytes of a line's salt; the reader takes exactly so many.
pub type MosquittoSalt = [u8; 12];

/// The line of one user.
///
/// # Errors
/// [`Unwritable`] for a name with a colon or control characters, with white space at an end, or with `#` at the
/// beginning.
pub fn mosquitto_password(login: &Login, salt: &MosquittoSalt) -> Result<String, Unwritable> {
    let reason = "has a colon or control characters, begins with #, or has white space at an end";
    let unfit = Unwritable { field: "the user name", reason, file: "Mosquitto's password file" };
    let one_field = |t: &str| !t.contains(|c: char| c == ':' || c.is_control()) && t.trim() == t && !t.starts_with('#');
    let user = fitting(login.user(), one_field, unfit)?;
    let mut hash = Zeroizing::new([0; 64]);
    pbkdf2_sha512(login.password().expose().as_bytes(), salt, ROUNDS, &mut hash);
    Ok(format!("{user}:$7${ROUNDS}${}${}\n", STANDARD.encode(salt), STANDARD.encode(&hash[..])))
}

/// The configuration: a listener that lets in nobody without a password.
///
/// # Errors
/// [`Unwritable`] for a path that is not one line of UTF-8.
pub fn mosquitto_conf(port: NonZeroU16, password_file: &Path) -> Result<String, Unwritable> {
    let path = plain_path(password_file, "mosquitto.conf")?;
    Ok(format!("listener {port}\nallow_anonymous false\npassword_file {path}\n"))
}

/// The broker computes as many at each connection of each client. A password of 264 random bits needs none, one that a
/// person chose would need more than a small device can spare.
const ROUNDS: NonZeroU32 = NonZeroU32::new(10_000).expect("more than none");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::login::login;
    use super::*;

    /// As the broker reads the file: name and the four fields of what follows.
    fn users(text: &str) -> Vec<(String, Vec<String>)> {
        let lines = text.split('\n').filter(|l| !l.starts_with('#') && l.contains(':'));
        lines
            .map(|line| {
                let (name, rest) = line.split_once(':').unwrap();
                let fields = rest.split('$').skip(1).map(str::to_owned).collect();
                (name.trim().to_owned(), fields)
            })
            .collect()
    }

    #[test]
    fn a_line_as_mosquitto_passwd_writes_it() {
        let line = mosquitto_password(&login("msgbususer", "secret").unwrap(), &[7; 12]).unwrap();
        // By Python: hashlib.pbkdf2_hmac("sha512", b"secret", bytes([7]) * 12, 10000)
        let hash = "NsUzim4dbGkauSAEDTryf0Mp2j8M+iDFU/poZXaoPhIrl2Q4kDeZY86EfZMd\
                    amogUrxVKMsBxwV0sVdta2j7zA==";
        assert_eq!(line, format!("msgbususer:$7$10000$BwcHBwcHBwcHBwcH${hash}\n"));
    }

    #[test]
    fn a_user_name_that_would_be_another_line_or_field_is_refused() {
        for bad in ["a:b", "a\nevil:$7$1$AAAA$AAAA", "#a", " a", "a ", "a\u{7f}", "a\r"] {
            assert_eq!(mosquitto_password(&login(bad, "p").unwrap(), &[0; 12]).unwrap_err().field, "the user name");
        }
    }

    #[test]
    fn a_path_that_would_be_a_second_directive_is_refused() {
        let port = NonZeroU16::new(1883).unwrap();
        for bad in ["/a\nallow_anonymous true", "/a\r", "/a "] {
            assert!(mosquitto_conf(port, Path::new(bad)).is_err(), "{bad:?}");
        }
        let text = mosquitto_conf(port, Path::new("/mosquitto/config/pwd # file")).unwrap();
        assert_eq!(text, "listener 1883\nallow_anonymous false\npassword_file /mosquitto/config/pwd # file\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))] // each costs 10,000 rounds
        #[test]
        fn whatever_the_values_one_user_is_let_in(user in "(?s).{1,20}", password in "(?s).{1,40}") {
            let Some(login) = login(&user, &password) else { return Ok(()) };
            if let Ok(text) = mosquitto_password(&login, &[1; 12]) {
                let users = users(&text);
                prop_assert_eq!(users.len(), 1);
                prop_assert_eq!(&users[0].0, &user);
                prop_assert_eq!(users[0].1.len(), 4);
                prop_assert_eq!(STANDARD.decode(&users[0].1[3]).unwrap().len(), 64);
            }
        }
    }
}
