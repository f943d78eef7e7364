//! JSON text laid out for people, without parsing it into values: numbers stay as they are, and no copy of a secret is
//! left.

use zeroize::Zeroizing;

/// Indents JSON by two spaces. The text must be JSON already; what is not comes out in another shape, and harms nobody.
pub(super) fn pretty(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(indented_length(text)));
    lay_out(text, &mut |s| out.push_str(s));
    out
}

fn indented_length(text: &str) -> usize {
    let mut length = 0;
    lay_out(text, &mut |s| length += s.len());
    length
}

fn lay_out(text: &str, emit: &mut dyn FnMut(&str)) {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut characters = text.char_indices().peekable();
    let newline = |depth: usize, emit: &mut dyn FnMut(&str)| {
        emit("\n");
        (0..depth).for_each(|_| emit("  "));
    };
    while let Some((at, c)) = characters.next() {
        let this = text.get(at..at + c.len_utf8()).unwrap_or_default();
        if quoted {
            emit(this);
            quoted = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            ' ' | '\n' | '\t' | '\r' => {}
            '"' => {
                quoted = true;
                emit(this);
            }
            '{' | '[' => {
                while characters.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
                emit(this);
                if characters.peek().is_none_or(|(_, next)| !matches!(next, '}' | ']')) {
                    depth += 1;
                    newline(depth, emit);
                } else if let Some((at, close)) = characters.next() {
                    emit(text.get(at..at + close.len_utf8()).unwrap_or_default());
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(depth, emit);
                emit(this);
            }
            ',' => {
                emit(this);
                newline(depth, emit);
            }
            ':' => emit(": "),
            _ => emit(this),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_out_as_serde_does_and_keeps_long_numbers() {
        let text = r#"{"a":[1,2,{"b":"x, {\"y\"}: [z]\\"}],"c":{},"d":[ ],"e":null}"#;
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(*pretty(text), serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(*pretty("{\"n\":12345678901234567890123}"), "{\n  \"n\": 12345678901234567890123\n}");
        assert_eq!(*pretty(" \"x\" "), "\"x\"");
    }
}
