//! PostgreSQL: the script that makes EdgeX's database, its group, and a user with a schema for each service, and that
//! gives each the password of today. Run again it changes nothing but passwords, so that a rotated one takes effect.
//!
//! It is for psql, whose `\gexec` runs what a query has made: there is no CREATE DATABASE IF NOT EXISTS. Names stand in
//! double quotes, texts in single ones (PostgreSQL 4.1.1, 4.1.2). Passwords stand there as SCRAM verifiers (RFC 5803):
//! the script, the server's log and its statistics let nobody in.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secret::crypto::{Hmac, pbkdf2_sha256, sha256};
use secret::{Password, Secret};

use super::{Login, Unwritable, fitting};

/// Random bytes of a verifier's salt.
pub type ScramSalt = [u8; 16];

/// Everybody who logs in.
#[derive(Debug)]
pub struct PostgresRoles {
    /// The one that runs the script.
    pub superuser: Login,
    /// Those that get a schema of their own.
    pub services: Vec<Login>,
}

/// The script as SQL for psql. `salt` fills a fresh salt for each password.
///
/// # Errors
/// [`Unwritable`]: a name of more than 63 bytes, which the server would cut, or one that is its own; two services with one
/// name; a password that is not ASCII, which server and client would each normalise (RFC 4013).
pub fn postgres_sql(roles: &PostgresRoles, salt: &mut dyn FnMut(&mut ScramSalt)) -> Result<String, Unwritable> {
    let mut verifier = |password: &Password| {
        let mut fresh = ScramSalt::default();
        salt(&mut fresh);
        scram_verifier(password, &fresh)
    };
    let mut out = String::with_capacity(1024 * (roles.services.len() + 1));
    out.push_str(DATABASE);
    let superuser = role(roles.superuser.user())?;
    let of_superuser = literal(&verifier(roles.superuser.password())?);
    let mut seen = std::collections::BTreeSet::from([roles.superuser.user()]);
    // All or nothing: what a kill leaves half done is done whole by the next start.
    out.push_str("BEGIN;\n");
    out.push_str(GROUP);
    line(&mut out, format_args!("ALTER ROLE {} PASSWORD {of_superuser};", superuser.quoted));
    for service in &roles.services {
        let Role { quoted, text } = role_of_service(service.user())?;
        if !seen.insert(service.user()) {
            return Err(unfit("is another user's as well"));
        }
        let password = literal(&verifier(service.password())?);
        line(&mut out, format_args!("SELECT format('CREATE ROLE %I', {text})"));
        line(&mut out, format_args!("    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {text})\\gexec"));
        line(&mut out, format_args!("ALTER ROLE {quoted} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"));
        line(&mut out, format_args!("    PASSWORD {password};"));
        line(&mut out, format_args!("GRANT {GROUP_NAME} TO {quoted};"));
        line(&mut out, format_args!("CREATE SCHEMA IF NOT EXISTS {quoted} AUTHORIZATION {quoted};"));
        line(&mut out, format_args!("ALTER SCHEMA {quoted} OWNER TO {quoted};"));
    }
    out.push_str("COMMIT;\n");
    Ok(out)
}

/// The same as a shell script, under the name `create-users.sh` that EdgeX's files give it: the PostgreSQL image reads
/// those with its shell. The text is a here-document without expansion, and none of its lines can end it.
///
/// # Errors
/// As [`postgres_sql`].
pub fn postgres_script(roles: &PostgresRoles, salt: &mut dyn FnMut(&mut ScramSalt)) -> Result<String, Unwritable> {
    let sql = postgres_sql(roles, salt)?;
    Ok(format!(
        "#!/bin/sh\npsql --no-psqlrc --username \"${{POSTGRES_USER:-postgres}}\" --dbname postgres <<'{END}'\n{sql}{END}\n"
    ))
}

/// A name as an identifier and as a text.
struct Role {
    quoted: String,
    text: String,
}

fn role(name: &str) -> Result<Role, Unwritable> {
    // A control character could end a line of the here-document, and nothing shows it.
    fitting(name, |n| !n.contains(char::is_control), unfit("has control characters"))?;
    if name.len() > MAX_NAME_BYTES {
        return Err(unfit("is longer than 63 bytes"));
    }
    Ok(Role { quoted: identifier(name), text: literal(name) })
}

fn role_of_service(name: &str) -> Result<Role, Unwritable> {
    let taken = [GROUP_NAME, "postgres", "public", "none", "information_schema"];
    if taken.contains(&name) || name.starts_with("pg_") {
        return Err(unfit("is the server's own"));
    }
    role(name)
}

const fn unfit(reason: &'static str) -> Unwritable {
    Unwritable { field: "the user name", reason, file: SCRIPT }
}

/// 4.1.1: any character between double quotes, and the quote itself twice.
fn identifier(name: &str) -> String {
    if !host::in_force("peer-values-escaped") {
        return format!("\"{name}\"");
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// 4.1.2.1 and, where there is a backslash, 4.1.2.2: then the text means the same whatever
/// `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    if !host::in_force("peer-values-escaped") {
        return format!("'{text}'");
    }
    let quotes = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quotes.replace('\\', "\\\\")) } else { format!("'{quotes}'") }
}

/// `SCRAM-SHA-256$<rounds>:<salt>$<StoredKey>:<ServerKey>` (RFC 5802, 3; RFC 7677; the form is PostgreSQL's).
fn scram_verifier(password: &Password, salt: &ScramSalt) -> Result<String, Unwritable> {
    let text = password.expose();
    // RFC 4013 leaves ASCII as it is. What it does to the rest, the server and every client would do by tables of their
    // own.
    if !text.is_ascii() {
        return Err(Unwritable { field: "the password", reason: "is not ASCII", file: SCRIPT });
    }
    let salted = Secret::<32>::init_with(|out| pbkdf2_sha256(text.as_bytes(), salt, ROUNDS, out));
    let keyed = Hmac::new(salted.expose());
    let client_key = Secret::<32>::init_with(|out| *out = keyed.sign(&[b"Client Key"]));
    let (stored_key, server_key) = (sha256(&[client_key.expose()]), keyed.sign(&[b"Server Key"]));
    let [salt, stored_key, server_key] = [&salt[..], &stored_key, &server_key].map(|b| STANDARD.encode(b));
    Ok(format!("SCRAM-SHA-256${ROUNDS}:{salt}${stored_key}:{server_key}"))
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes everything");
}

const SCRIPT: &str = "PostgreSQL's script";
const END: &str = "END-OF-SQL";
const GROUP_NAME: &str = "edgex_user";
/// NAMEDATALEN - 1: a longer name is cut, and two could become one.
const MAX_NAME_BYTES: usize = 63;
/// The server's own default; RFC 7677 asks for no fewer.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("more than none");

/// The first fault ends the script: what follows would work on another ground.
const DATABASE: &str = "\
\\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';
SELECT 'CREATE DATABASE edgex_db' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'edgex_db')\\gexec
\\connect edgex_db
SET client_encoding = 'UTF8';
";

/// EdgeX's services make their own tables and extensions, so the group may create; others may not even connect.
const GROUP: &str = "\
SELECT 'CREATE ROLE edgex_user NOLOGIN'
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'edgex_user')\\gexec
REVOKE ALL ON DATABASE edgex_db FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CONNECT, CREATE, TEMPORARY ON DATABASE edgex_db TO edgex_user;
";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::login::login;
    use super::*;

    #[derive(Debug, PartialEq, Clone)]
    enum Piece {
        Name(String),
        Text(String),
        /// A word or a sign.
        Plain(String),
        /// A command of psql, to the end of the line or the next blank.
        Meta(String),
    }

    /// As psql and the server split a script; `None` where a quote is never closed.
    fn pieces(sql: &str) -> Option<Vec<Piece>> {
        let (mut out, mut rest) = (Vec::new(), sql.chars().peekable());
        while let Some(c) = rest.next() {
            match c {
                c if c.is_ascii_whitespace() => {}
                '"' => out.push(Piece::Name(quoted(&mut rest, '"', false)?)),
                '\'' => out.push(Piece::Text(quoted(&mut rest, '\'', false)?)),
                'E' if rest.peek() == Some(&'\'') => {
                    rest.next();
                    out.push(Piece::Text(quoted(&mut rest, '\'', true)?));
                }
                '\\' => {
                    let mut word = String::new();
                    while let Some(c) = rest.next_if(|c| !c.is_ascii_whitespace()) {
                        word.push(c);
                    }
                    out.push(Piece::Meta(word));
                }
                '-' if rest.peek() == Some(&'-') => return None,
                c => {
                    let mut word = String::from(c);
                    if c.is_ascii_alphanumeric() || c == '_' {
                        while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                            word.push(c);
                        }
                    }
                    out.push(Piece::Plain(word));
                }
            }
        }
        Some(out)
    }

    fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, end: char, escapes: bool) -> Option<String> {
        let mut text = String::new();
        loop {
            match rest.next()? {
                c if c == end => match rest.next_if_eq(&end) {
                    Some(c) => text.push(c),
                    None => return Some(text),
                },
                '\\' if escapes => text.push(rest.next()?),
                c => text.push(c),
            }
        }
    }

    fn roles(user: &str, password: &str) -> Option<PostgresRoles> {
        Some(PostgresRoles { superuser: login("postgres", "s")?, services: vec![login(user, password)?] })
    }

    fn sql(user: &str, password: &str) -> Result<String, Unwritable> {
        postgres_sql(&roles(user, password).unwrap(), &mut |salt| salt.fill(1))
    }

    /// The pieces with names, texts and what they mean blotted out.
    fn skeleton(sql: &str) -> Vec<Piece> {
        let blot = |piece| match piece {
            Piece::Name(_) => Piece::Name(String::new()),
            Piece::Text(_) => Piece::Text(String::new()),
            other => other,
        };
        pieces(sql).unwrap().into_iter().map(blot).collect()
    }

    #[test]
    fn the_verifier_is_that_of_rfc_7677() {
        let salt: ScramSalt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let text = scram_verifier(login("user", "pencil").unwrap().password(), &salt).unwrap();
        let keys = text.strip_prefix("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$").unwrap();
        let (stored, server) = keys.split_once(':').unwrap();
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let message =
            format!("n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}");
        let signed = |key: &str| Hmac::new(&STANDARD.decode(key).unwrap()).sign(&[message.as_bytes()]);
        // Section 3: what the server and the client send last.
        assert_eq!(STANDARD.encode(signed(server)), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let client_key: Vec<u8> = proof.iter().zip(signed(stored)).map(|(p, s)| p ^ s).collect();
        assert_eq!(STANDARD.encode(sha256(&[&client_key])), stored);
    }

    #[test]
    fn a_hostile_name_is_a_name() {
        let hostile = r#"x"; DROP TABLE y; --'\"#;
        let pieces = pieces(&sql(hostile, "p").unwrap()).unwrap();
        assert_eq!(pieces.iter().filter(|p| **p == Piece::Name(hostile.into())).count(), 6);
        assert_eq!(pieces.iter().filter(|p| **p == Piece::Text(hostile.into())).count(), 2);
        assert_eq!(skeleton(&sql(hostile, "p").unwrap()), skeleton(&sql("core_data", "p").unwrap()));
    }

    #[test]
    fn names_that_the_server_would_change_or_that_are_its_own_are_refused() {
        let long = "x".repeat(64);
        for (bad, reason) in [
            ("postgres", "is the server's own"),
            ("pg_read_all_data", "is the server's own"),
            ("edgex_user", "is the server's own"),
            ("a\nEND-OF-SQL\nrm", "has control characters"),
            (&long, "is longer than 63 bytes"),
        ] {
            assert_eq!(sql(bad, "p").unwrap_err().reason, reason, "{bad:?}");
        }
        let twice = PostgresRoles {
            superuser: login("postgres", "s").unwrap(),
            services: vec![login("a", "p").unwrap(), login("a", "q").unwrap()],
        };
        assert_eq!(postgres_sql(&twice, &mut |_| {}).unwrap_err().reason, "is another user's as well");
    }

    #[test]
    fn a_password_that_each_side_would_normalise_is_refused() {
        assert_eq!(sql("a", "\u{2163}").unwrap_err().field, "the password"); // RFC 4013 makes "IV" of it
    }

    #[test]
    fn no_password_is_in_the_script() {
        let text = sql("core_data", "a-password-of-this-test").unwrap();
        assert!(!text.contains("a-password-of-this-test") && text.contains("'SCRAM-SHA-256$4096:"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))] // each costs three times 4096 rounds
        #[test]
        fn whatever_the_values_the_script_is_the_same_but_for_them(user in r#"[a-z'"\\;$\-# é]{1,20}|[^\x00]{1,20}"#,
                password in r#"[a-z'"\\;$\-# ]{1,30}"#) {
            if let Ok(text) = sql(&user, &password) {
                prop_assert_eq!(skeleton(&text), skeleton(&sql("core_data", "p").unwrap()));
                prop_assert!(pieces(&text).unwrap().contains(&Piece::Name(user.clone())));
                let script = postgres_script(&roles(&user, &password).unwrap(), &mut |s| s.fill(1)).unwrap();
                prop_assert_eq!(script.lines().filter(|l| *l == END).count(), 1);
                prop_assert_eq!(script.lines().last(), Some(END));
            }
        }
    }
}
