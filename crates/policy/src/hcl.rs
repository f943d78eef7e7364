//! A reader of HCL 1 and of JSON, as far as policies use them: total, bounded, and giving lines.
//!
//! ```text
//! document = items, or in JSON one object; JSON is told by its first character, `{`
//! item     = key+ ( "=" value | object )      a key is a word or a quoted text; JSON: one quoted key ":" value
//! value    = text | number | true | false | list | object | <<WORD heredoc
//! comment  = # ...  |  // ...  |  /* ... */
//! ```
//!
//! `${...}` in a text is left as it is: policies have no functions to call.

mod text;
mod value;

use std::iter::Peekable;
use std::str::CharIndices;

use zeroize::Zeroizing;

pub(crate) use value::{Item, Value};

/// Deepest nesting of lists and objects. A policy needs five.
pub(crate) const MAX_DEPTH: u32 = 32;

/// What was expected, and on which line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: u32,
    pub(crate) problem: &'static str,
}

/// Reads a document.
pub(crate) fn document(text: &str) -> Result<Vec<Item>, SyntaxError> {
    let mut reader = Reader::new(text, text.trim_start().starts_with('{'));
    if reader.json {
        let Value::Object(items) = reader.value()? else { return reader.fault("expected an object") };
        reader.skip_space()?;
        return if reader.peek().is_none() { Ok(items) } else { reader.fault("unexpected text after the object") };
    }
    reader.items(None)
}

/// Reads one JSON value of a request; `None` where it is none, or too deep.
pub(crate) fn json_value(text: &str) -> Option<Value> {
    let mut reader = Reader::new(text, true);
    let value = reader.value().ok()?;
    reader.skip_space().ok()?;
    reader.peek().is_none().then_some(value)
}

struct Reader<'a> {
    text: &'a str,
    left: Peekable<CharIndices<'a>>,
    line: u32,
    depth: u32,
    json: bool,
}

type Read<T> = Result<T, SyntaxError>;

impl<'a> Reader<'a> {
    fn new(text: &'a str, json: bool) -> Self {
        Self { text, left: text.char_indices().peekable(), line: 1, depth: 0, json }
    }

    fn fault<T>(&self, problem: &'static str) -> Read<T> {
        Err(SyntaxError { line: self.line, problem })
    }

    fn peek(&mut self) -> Option<char> {
        self.left.peek().map(|(_, c)| *c)
    }

    /// Byte position of the next character.
    fn at(&mut self) -> usize {
        self.left.peek().map_or(self.text.len(), |(i, _)| *i)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.left.next().map(|(_, c)| c);
        self.line = self.line.saturating_add(u32::from(c == Some('\n')));
        c
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.next();
        }
        there
    }

    /// Skips white space and, in HCL, comments.
    fn skip_space(&mut self) -> Read<()> {
        loop {
            match self.peek() {
                Some(c) if c.is_ascii_whitespace() => {
                    self.next();
                }
                Some('#') if !self.json => self.skip_line(),
                Some('/') if !self.json => {
                    self.next();
                    match self.next() {
                        Some('/') => self.skip_line(),
                        Some('*') => self.skip_block_comment()?,
                        _ => return self.fault("expected a comment after '/'"),
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.next();
        }
    }

    fn skip_block_comment(&mut self) -> Read<()> {
        let mut before = ' ';
        while let Some(c) = self.next() {
            if before == '*' && c == '/' {
                return Ok(());
            }
            before = c;
        }
        self.fault("a comment is not closed")
    }

    fn word(&mut self) -> &'a str {
        let start = self.at();
        while self.peek().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            self.next();
        }
        let end = self.at();
        self.text.get(start..end).unwrap_or_default()
    }

    /// Items of HCL up to `close`, or of the whole text.
    fn items(&mut self, close: Option<char>) -> Read<Vec<Item>> {
        let mut items = Vec::new();
        loop {
            self.skip_space()?;
            match (self.peek(), close) {
                (None, None) => return Ok(items),
                (None, Some(_)) => return self.fault("expected '}', and the text ends"),
                (c, close) if c == close => {
                    self.next();
                    return Ok(items);
                }
                _ => items.push(self.item()?),
            }
            self.skip_space()?;
            self.take(',');
        }
    }

    fn item(&mut self) -> Read<Item> {
        let line = self.line;
        let mut keys = Vec::new();
        loop {
            self.skip_space()?;
            match self.peek() {
                Some('"') => keys.push(self.quoted()?.to_string()),
                Some('{') if !keys.is_empty() => break,
                Some('=') if keys.len() == 1 => {
                    self.next();
                    break;
                }
                Some('=') if keys.len() > 1 => return self.fault("expected '{' after a block's label"),
                Some(c) if c.is_alphabetic() || c == '_' => keys.push(self.word().to_owned()),
                _ => return self.fault("expected a key"),
            }
            if keys.len() > 2 {
                return self.fault("expected '{' after a block's label");
            }
        }
        Ok(Item { keys, line, value: self.value()? })
    }

    fn value(&mut self) -> Read<Value> {
        self.skip_space()?;
        match self.peek() {
            Some('"') => self.quoted().map(Value::Text),
            Some('[') => self.nested(Self::list),
            Some('{') => self.nested(Self::object),
            Some('<') if !self.json => self.heredoc().map(|t| Value::Text(Zeroizing::new(t))),
            Some(c) if c == '-' || c.is_ascii_digit() => self.number(),
            Some(c) if c.is_alphabetic() => match self.word() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                "null" => Ok(Value::Null),
                _ => self.fault("expected a value; texts stand in quotes"),
            },
            _ => self.fault("expected a value"),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Read<Value>) -> Read<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fault("lists and objects are nested too deeply");
        }
        self.next();
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// After `[`. HCL allows a comma before `]`.
    fn list(&mut self) -> Read<Value> {
        let mut values = Vec::new();
        loop {
            self.skip_space()?;
            if (values.is_empty() || !self.json) && self.take(']') {
                return Ok(Value::List(values));
            }
            values.push(self.value()?);
            self.skip_space()?;
            if self.take(']') {
                return Ok(Value::List(values));
            }
            if !self.take(',') {
                return self.fault("expected ',' or ']' in a list");
            }
        }
    }

    /// After `{`.
    fn object(&mut self) -> Read<Value> {
        if !self.json {
            return self.items(Some('}')).map(Value::Object);
        }
        let mut items = Vec::new();
        self.skip_space()?;
        if self.take('}') {
            return Ok(Value::Object(items));
        }
        loop {
            self.skip_space()?;
            let line = self.line;
            let keys = vec![self.quoted()?.to_string()];
            self.skip_space()?;
            if !self.take(':') {
                return self.fault("expected ':' after a key");
            }
            items.push(Item { keys, line, value: self.value()? });
            self.skip_space()?;
            if self.take('}') {
                return Ok(Value::Object(items));
            }
            if !self.take(',') {
                return self.fault("expected ',' or '}' in an object");
            }
        }
    }

    fn number(&mut self) -> Read<Value> {
        let start = self.at();
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) {
            self.next();
        }
        let end = self.at();
        let text = self.text.get(start..end).unwrap_or_default();
        let hex = text.strip_prefix("0x").filter(|_| !self.json);
        if let Some(n) = hex.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            return Ok(Value::Number(n.to_string()));
        }
        // What JSON takes as a number is one; the value itself stays text.
        match serde_json::from_str::<&serde_json::value::RawValue>(text) {
            Ok(_) => Ok(Value::Number(text.to_owned())),
            Err(_) => self.fault("expected a number"),
        }
    }

    /// Up to the end of the line, which stays.
    fn rest_of_line(&mut self) -> &'a str {
        let start = self.at();
        self.skip_line();
        let end = self.at();
        self.text.get(start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Value {
        let items = document(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        items.into_iter().next().map(|i| i.value).unwrap()
    }

    fn fault(text: &str) -> (u32, &'static str) {
        let e = document(text).unwrap_err();
        (e.line, e.problem)
    }

    #[test]
    fn blocks_labels_comments_and_lines() {
        let items =
            document("# a\n// b\n/* c\n * **/ path \"x/*\" { # d\n a = 1, b = [1, 2,], }\nname = \"n\"").unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!((items[0].keys.join("|"), items[0].line), ("path|x/*".into(), 4));
        let Value::Object(inner) = &items[0].value else { panic!() };
        assert_eq!(inner.iter().map(|i| (i.keys[0].as_str(), i.line)).collect::<Vec<_>>(), [("a", 5), ("b", 5)]);
        assert_eq!(items[1].line, 6);
    }

    #[test]
    fn json_gives_the_same_values() {
        let hcl = only(r#"v = { "a" = [1, -2.5e3, true, null, "x\n\u00e9"], b { c = {} } }"#);
        let json = only(r#"  {"v": {"b": {"c": {}}, "a": [1, -2500.0, true, null, "x\n\u00e9"]}}"#);
        assert_eq!(hcl, json);
        assert_eq!(json_value(r#""\ud83d\ude00""#), Some(Value::text("\u{1f600}")));
        assert_eq!(only("v = 0x1F"), Value::Number("31".into()));
        assert_eq!(only(r#"v = "\x41\U0001F600${a}""#), Value::text("A\u{1f600}${a}"));
    }

    #[test]
    fn heredocs_keep_their_lines() {
        assert_eq!(only("v = <<EOF\n  a\n\n b\n  EOF\n"), Value::text("  a\n\n b\n"));
        assert_eq!(only("v = <<-EOF\n    a\n   b\n  EOF"), Value::text("  a\n b\n"));
        assert_eq!(fault("v = <<EOF\n a\n"), (3, "a heredoc is not closed"));
        assert_eq!(fault("v = <<EOF x\n").1, "expected a word alone after '<<'");
    }

    #[test]
    fn faults_name_their_line() {
        for (text, line, problem) in [
            ("path \"x\" {\n a = 1\n", 3, "expected '}', and the text ends"),
            ("\n[1]", 2, "expected a key"),
            ("a = [1 2]", 1, "expected ',' or ']' in a list"),
            ("a = b", 1, "expected a value; texts stand in quotes"),
            ("a = \"b\nc\"", 2, "a text in quotes is not closed on its line"),
            ("a = \"b", 1, "a text in quotes is not closed"),
            ("a = \"\\q\"", 1, "an unknown escape in a text"),
            ("a = 1.2.3", 1, "expected a number"),
            ("/* x", 1, "a comment is not closed"),
            ("/ x", 1, "expected a comment after '/'"),
            ("path \"x\" = {}", 1, "expected '{' after a block's label"),
            ("path \"x\" \"y\" {}", 1, "expected '{' after a block's label"),
            ("{\"a\": 1} x", 1, "unexpected text after the object"),
            ("{\"a\" 1}", 1, "expected ':' after a key"),
            ("{\"a\": \"\\ud800\"}", 1, "half of a UTF-16 pair"),
            ("{\n// no\n}", 2, "expected a text in quotes"),
        ] {
            assert_eq!(fault(text), (line, problem), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let fits = |n: usize| document(&format!("a = {}{}", "[".repeat(n), "]".repeat(n))).is_ok();
        assert!(fits(32));
        assert!(!fits(33));
        assert_eq!(fault(&"a {".repeat(100_000)).1, "lists and objects are nested too deeply");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\n\u{e9}]{0,80}", tokens in "([{}\\[\\]=,:\"a1 \n<#/*\\\\-]){0,60}") {
            for t in [&text, &tokens] {
                if let Err(e) = document(t) {
                    proptest::prop_assert!(e.line as usize <= t.matches('\n').count() + 1);
                }
                json_value(t);
            }
        }

        #[test]
        fn json_values_agree_with_serde(text in r#"[\[\]{}":, a0-9.eE+\\-]{0,24}"#) {
            let ours = json_value(&text).is_some();
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // serde refuses numbers beyond f64; we keep them as text.
            let too_large = theirs.as_ref().is_err_and(|e| e.to_string().contains("number out of range"));
            proptest::prop_assert!(ours == theirs.is_ok() || too_large, "{text:?}: {ours} and {theirs:?}");
        }
    }
}
