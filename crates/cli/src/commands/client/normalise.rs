//! Vault's notation of flags turned into ours: `-format=json` is `--format=json`, and flags may stand before the
//! command.

use std::ffi::OsString;

/// Rewrites the arguments of a process, its name first. What stands after `--` is left alone, and so is every value.
///
/// Flags of a connection before the command (`edgekeep --as sensor kv put ...`) move behind it, for there clap looks
/// for them.
pub(crate) fn normalise(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut rest = arguments.into_iter();
    let mut out: Vec<OsString> = rest.next().into_iter().collect();
    let (mut early, mut command_seen, mut literal) = (Vec::new(), false, false);
    while let Some(argument) = rest.next() {
        if literal {
            out.push(argument);
            continue;
        }
        let argument = doubled(argument);
        let text = argument.to_str().unwrap_or_default();
        literal = text == "--";
        if command_seen || literal {
            out.push(argument);
            continue;
        }
        match text.strip_prefix("--") {
            Some(flag) if MOVABLE.contains(&flag) => {
                early.push(argument);
                early.extend(rest.next());
            }
            Some(flag) if flag.split_once('=').is_some_and(|(name, _)| MOVABLE.contains(&name)) => early.push(argument),
            Some(flag) if SWITCHES.contains(&flag) => early.push(argument),
            Some(_) => out.push(argument),
            None => {
                command_seen = !text.starts_with('-');
                out.push(argument);
                if command_seen {
                    out.append(&mut early);
                }
            }
        }
    }
    out.append(&mut early);
    out
}

/// `-word...` with a second dash; a lone `-` (standard input), `-h`, `-V` and negative numbers stay.
fn doubled(argument: OsString) -> OsString {
    let Some(text) = argument.to_str() else { return argument };
    let Some(flag) = text.strip_prefix('-') else { return argument };
    let name = flag.split('=').next().unwrap_or_default();
    let is_word = name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_word { OsString::from(format!("--{flag}")) } else { argument }
}

/// Flags with a value that may stand before the command.
const MOVABLE: [&str; 8] = ["as", "address", "ca-cert", "tls-server-name", "run-dir", "format", "field", "namespace"];

/// Flags without a value that may stand before the command.
const SWITCHES: [&str; 1] = ["danger-plain-http"];

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        normalise(words).into_iter().map(|w| w.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_dash_becomes_two_and_values_stay() {
        for (given, wanted) in [
            ("e read -format=json secret/a", "e read --format=json secret/a"),
            ("e read -field x secret/a", "e read --field x secret/a"),
            ("e write secret/a k=- v=-x", "e write secret/a k=- v=-x"),
            ("e write secret/a -", "e write secret/a -"),
            ("e -h", "e -h"),
            ("e kv put s/a -- -dash=1", "e kv put s/a -- -dash=1"),
            ("e --version", "e --version"),
        ] {
            assert_eq!(normalised(given), wanted);
        }
    }

    #[test]
    fn flags_before_the_command_move_behind_it() {
        for (given, wanted) in [
            ("e --as sensor kv put s/a b=c", "e kv --as sensor put s/a b=c"),
            ("e -as=sensor -format json read a", "e read --as=sensor --format json a"),
            ("e --danger-plain-http status", "e status --danger-plain-http"),
            ("e --help read", "e --help read"),
            ("e --as", "e --as"),
            ("e up --demo --as x", "e up --demo --as x"),
        ] {
            assert_eq!(normalised(given), wanted);
        }
    }
}
