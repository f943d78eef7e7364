//! Redis: `redis.conf` and the file of access rules that it names.
//!
//! The rules are one user a line, its words apart by single spaces and without any quoting (redis.io, ACL, "external
//! ACL file"), so that a name with white space cannot be written. The password stands there as its SHA-256, which Redis
//! compares with.

use std::num::NonZeroU32;
use std::path::Path;

use super::{Login, Unwritable, fitting, plain_path};

/// The rules of one user, with all keys and channels and all but the dangerous commands, and of nobody else.
///
/// # Errors
/// [`Unwritable`] for a name with white space or control characters.
pub fn redis_acl(login: &Login) -> Result<String, Unwritable> {
    let unfit = Unwritable { field: "the user name", reason: "has white space or control characters", file: ACL };
    let one_word = |t: &str| !t.contains(|c: char| c.is_whitespace() || c.is_control());
    let user = fitting(login.user(), one_word, unfit)?;
    let digest = hex::encode(secret::crypto::sha256(&[login.password().expose().as_bytes()]));
    // `reset` takes away what the built-in user comes with: no password and every command.
    let rules = format!("user {user} reset on #{digest} allkeys allchannels +@all -@dangerous\n");
    if user == DEFAULT_USER {
        return Ok(rules);
    }
    // A file that does not mention it would leave the built-in user open to everybody.
    Ok(format!("user {DEFAULT_USER} reset off\n{rules}"))
}

/// The configuration: where the rules are, and how many clients may connect.
///
/// # Errors
/// [`Unwritable`] for a path that is not one line of UTF-8.
pub fn redis_conf(acl: &Path, max_clients: NonZeroU32) -> Result<String, Unwritable> {
    let path = plain_path(acl, CONF)?;
    Ok(format!("aclfile {}\nmaxclients {max_clients}\n", quoted(path)))
}

/// In double quotes, with Redis's escapes inside (`sdssplitargs`: backslash takes the next character literally, but for
/// n, r, t, b, a and x).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') && host::in_force("peer-values-escaped") {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

const ACL: &str = "Redis's ACL file";
const CONF: &str = "redis.conf";
/// Whoever says no name is this one.
const DEFAULT_USER: &str = "default";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::login::login;
    use super::*;

    /// As Redis reads the file: lines by `\n`, trimmed, words by one space.
    fn users(text: &str) -> Vec<(String, Vec<String>)> {
        let lines = text.split('\n').map(|l| l.trim_matches([' ', '\t', '\r', '\n'])).filter(|l| !l.is_empty());
        lines
            .map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                assert_eq!(words.next().as_deref(), Some("user"), "{line:?}");
                (words.next().unwrap(), words.collect())
            })
            .collect()
    }

    /// As Redis reads one line of its configuration.
    fn arguments(line: &str) -> Option<Vec<String>> {
        let (mut out, mut rest) = (Vec::new(), line.chars().peekable());
        while let Some(first) = rest.find(|c| !c.is_ascii_whitespace()) {
            let mut word = String::new();
            if first == '"' {
                loop {
                    match rest.next()? {
                        '"' => break,
                        '\\' => word.push(match rest.next()? {
                            'n' => '\n',
                            'x' => return None,
                            other => other,
                        }),
                        c => word.push(c),
                    }
                }
                if rest.peek().is_some_and(|c| !c.is_ascii_whitespace()) {
                    return None;
                }
            } else {
                word.push(first);
                while let Some(c) = rest.next_if(|c| !c.is_ascii_whitespace()) {
                    word.push(c);
                }
            }
            out.push(word);
        }
        Some(out)
    }

    #[test]
    fn the_default_user_has_a_password_or_is_off() {
        let digest = "#5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"; // sha256sum of "password"
        let rules = ["reset", "on", digest, "allkeys", "allchannels", "+@all", "-@dangerous"].map(str::to_owned);
        let default = users(&redis_acl(&login("default", "password").unwrap()).unwrap());
        assert_eq!(default, [("default".to_owned(), rules.to_vec())]);
        let named = users(&redis_acl(&login("redis5", "password").unwrap()).unwrap());
        let off = ("default".to_owned(), vec!["reset".to_owned(), "off".to_owned()]);
        assert_eq!(named, [off, ("redis5".to_owned(), rules.to_vec())]);
    }

    #[test]
    fn a_user_name_that_would_be_a_second_user_is_refused() {
        for bad in ["a\nuser evil on nopass +@all ~*", "a on nopass", "a\tb", "a\r", "a\u{85}b", "\u{2028}"] {
            assert_eq!(redis_acl(&login(bad, "p").unwrap()).unwrap_err().field, "the user name", "{bad:?}");
        }
    }

    #[test]
    fn a_path_that_would_be_a_second_directive_is_refused() {
        let clients = NonZeroU32::new(7).unwrap();
        assert!(redis_conf(Path::new("/run/a\nprotected-mode no"), clients).is_err());
        let text = redis_conf(Path::new("/run/a \"b\\/acl"), clients).unwrap();
        let lines: Vec<_> = text.lines().map(|l| arguments(l).unwrap()).collect();
        assert_eq!(lines, [vec!["aclfile", "/run/a \"b\\/acl"], vec!["maxclients", "7"]]);
    }

    proptest! {
        #[test]
        fn whatever_the_values_one_user_is_let_in_by_one_password(user in ".{1,20}", password in "(?s).{1,40}") {
            let Some(login) = login(&user, &password) else { return Ok(()) };
            if let Ok(text) = redis_acl(&login) {
                let mut users = users(&text);
                let (name, rules) = users.pop().unwrap();
                prop_assert_eq!(name, user.clone());
                prop_assert_eq!(rules.len(), 7);
                prop_assert_eq!(users.len(), usize::from(user != "default"));
                prop_assert!(!text.contains(&password) || password.len() < 8, "no password in clear");
            }
        }
    }
}
