//! `key=value` arguments as a JSON body.
//!
//! `key=@file` takes the value from a file and `key=-` from standard input, so that no secret needs to be an argument,
//! which every user of the machine can read. `@file` and `-` alone are a whole JSON object. `key=\@x` is the text `@x`.

use std::io::Read;
use std::path::Path;

use api::{Body, MAX_BODY_BYTES};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Builds the body. No arguments are an empty body.
pub(super) fn body(pairs: &[String], stdin: &mut dyn Read) -> Result<Body, Failure> {
    if let [whole] = pairs {
        let text = match whole.strip_prefix('@') {
            _ if whole == "-" => Some(read_all(stdin, "standard input")?),
            Some(file) => Some(read_file(file)?),
            None => None,
        };
        if let Some(text) = text {
            let body = Body::new(text);
            body.fields().map_err(|e| Failure::usage(format!("{whole:?}: {e}")).hint("give one JSON object"))?;
            return Ok(body);
        }
    }
    if pairs.is_empty() {
        return Ok(Body::empty());
    }
    let mut values: Vec<(&str, Zeroizing<String>)> = Vec::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            // The word may be a secret that lost its key: it is not repeated.
            return Err(Failure::usage("an argument is no key=value").hint("write key=value, key=@file or key=-"));
        };
        if values.iter().any(|(k, _)| *k == key) {
            return Err(Failure::usage(format!("the key {key:?} is given twice")).hint("give each key once"));
        }
        values.push((key, value_of(key, value, stdin)?));
    }
    let room = values.iter().map(|(k, v)| 6 * (k.len() + v.len()) + 8).sum::<usize>() + 2;
    let mut json = Zeroizing::new(Vec::with_capacity(room));
    json.push(b'{');
    for (i, (key, value)) in values.iter().enumerate() {
        if i > 0 {
            json.push(b',');
        }
        write_text(&mut json, key)?;
        json.push(b':');
        write_text(&mut json, value)?;
    }
    json.push(b'}');
    Ok(Body::new(json))
}

fn value_of(key: &str, value: &str, stdin: &mut dyn Read) -> Result<Zeroizing<String>, Failure> {
    let bytes = match value.strip_prefix('@') {
        _ if value == "-" => read_all(stdin, "standard input")?,
        Some(file) => read_file(file)?,
        None => {
            let literal = value.strip_prefix('\\').filter(|rest| rest.starts_with('@')).unwrap_or(value);
            return Ok(Zeroizing::new(literal.to_owned()));
        }
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Failure::usage(format!("the value of {key:?} is not UTF-8 text")).hint("encode it, for example with base64")
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn write_text(json: &mut Vec<u8>, text: &str) -> Result<(), Failure> {
    serde_json::to_writer(json, text).map_err(|e| Failure::fault(format!("cannot write JSON: {e}")))
}

pub(super) fn read_file(file: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |e: std::io::Error| Failure::usage(format!("cannot read {file:?}: {e}"));
    let mut opened = std::fs::File::open(Path::new(file)).map_err(failed)?;
    read_all(&mut opened, &format!("{file:?}"))
}

/// All of it, within the bound of a body, in one piece that never grows.
pub(super) fn read_all(source: &mut dyn Read, name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(vec![0_u8; MAX_BODY_BYTES + 1]);
    let mut filled = 0;
    while filled < bytes.len() {
        match source.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Failure::usage(format!("cannot read {name}: {e}"))),
        }
    }
    if filled > MAX_BODY_BYTES {
        return Err(Failure::usage(format!("{name} has more than 1 MiB")).hint("no secret of a device is that large"));
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use host::{Disk, OsDisk};

    use super::*;

    fn built(pairs: &[&str], stdin: &str) -> Result<String, Failure> {
        let pairs: Vec<_> = pairs.iter().map(|p| (*p).to_owned()).collect();
        let body = body(&pairs, &mut stdin.as_bytes())?;
        Ok(String::from_utf8(body.expose().to_vec()).unwrap())
    }

    #[test]
    fn values_come_from_arguments_files_and_standard_input() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        OsDisk.write_new(&file, b"of a \"file\"\n", 0o600, None).unwrap();
        let from_file = format!("b=@{}", file.display());
        assert_eq!(
            built(&["a=1=2", &from_file, "c=-", "d=\\@x", "e="], "of stdin").unwrap(),
            r#"{"a":"1=2","b":"of a \"file\"\n","c":"of stdin","d":"@x","e":""}"#
        );
        assert_eq!(built(&["-"], r#"{"x": [1]}"#).unwrap(), r#"{"x": [1]}"#);
        assert_eq!(built(&[], "").unwrap(), "");
    }

    #[test]
    fn slips_are_usage_and_say_no_value() {
        for (pairs, stdin) in [
            (&["hunter2"][..], ""),
            (&["=hunter2"], ""),
            (&["a=hunter2", "a=x"], ""),
            (&["-"], "hunter2"),
            (&["a=@/nonexistent/file"], ""),
        ] {
            let failure = built(pairs, stdin).unwrap_err();
            assert_eq!(failure.code, crate::failure::Code::Usage);
            assert!(!failure.fact.contains("hunter2"), "{}", failure.fact);
        }
        assert!(built(&["a=-"], &"x".repeat(MAX_BODY_BYTES + 1)).is_err());
    }
}
