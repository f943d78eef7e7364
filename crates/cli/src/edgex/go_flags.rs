//! Flags as Go's programs take them, for clap: `-uri x` and `-uri=x` mean `--uri x`.

use std::ffi::OsString;

/// Gives every flag of more than one letter its second dash. What stands after `--` is left alone, and so are values: a
/// flag's value begins with a dash only behind `=`.
pub(super) fn doubled(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut literal = false;
    arguments
        .into_iter()
        .map(|argument| {
            let Some(text) = argument.to_str() else { return argument };
            literal |= text == "--";
            let name = text.strip_prefix('-').and_then(|t| t.split('=').next()).unwrap_or_default();
            let single = name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic());
            if single && !literal { OsString::from(format!("-{text}")) } else { argument }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_is_as_good_as_two() {
        let given = [
            "p",
            "--configDir=res",
            "-cd",
            "res",
            "waitFor",
            "-uri=tcp://a:1",
            "-uri",
            "file:///-x",
            "-h",
            "--",
            "-uri",
        ];
        let doubled = doubled(given.map(OsString::from).to_vec());
        let wanted = [
            "p",
            "--configDir=res",
            "--cd",
            "res",
            "waitFor",
            "--uri=tcp://a:1",
            "--uri",
            "file:///-x",
            "-h",
            "--",
            "-uri",
        ];
        assert_eq!(doubled, wanted.map(OsString::from));
    }
}
