//! Texts: in quotes, with their escapes, and as heredocs.

use zeroize::Zeroizing;

use super::{Read, Reader};

impl Reader<'_> {
    pub(super) fn quoted(&mut self) -> Read<Zeroizing<String>> {
        if !self.take('"') {
            return self.fault("expected a text in quotes");
        }
        // Room for the text up to the next quote: without escapes it never grows, and so leaves no copy behind.
        let start = self.at();
        let room = self.text.get(start..).and_then(|left| left.find('"')).unwrap_or(0);
        let mut text = Zeroizing::new(String::with_capacity(room));
        loop {
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => {
                    let c = self.escape()?;
                    text.push(c);
                }
                Some('\n') if !self.json => return self.fault("a text in quotes is not closed on its line"),
                Some(c) if self.json && c < ' ' => return self.fault("a control character in a text"),
                Some(c) => text.push(c),
                None => return self.fault("a text in quotes is not closed"),
            }
        }
    }

    /// After the backslash.
    fn escape(&mut self) -> Read<char> {
        match self.next() {
            Some(c @ ('"' | '\\' | '/')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('x') if !self.json => self.code_point(2),
            Some('U') if !self.json => self.code_point(8),
            Some('u') => self.utf16(),
            _ => self.fault("an unknown escape in a text"),
        }
    }

    fn hex(&mut self, digits: usize) -> Read<u32> {
        let mut code = 0;
        for _ in 0..digits {
            match self.next().and_then(|c| c.to_digit(16)) {
                Some(d) => code = code * 16 + d,
                None => return self.fault("expected a hexadecimal digit"),
            }
        }
        Ok(code)
    }

    fn code_point(&mut self, digits: usize) -> Read<char> {
        let code = self.hex(digits)?;
        char::from_u32(code).map_or_else(|| self.fault("not a Unicode character"), Ok)
    }

    /// `\uXXXX`, or two of them for what UTF-16 writes as a pair.
    fn utf16(&mut self) -> Read<char> {
        let first = self.hex(4)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).map_or_else(|| self.fault("half of a UTF-16 pair"), Ok);
        }
        if !(self.take('\\') && self.take('u')) {
            return self.fault("half of a UTF-16 pair");
        }
        let second = self.hex(4)?;
        if !(0xdc00..0xe000).contains(&second) {
            return self.fault("half of a UTF-16 pair");
        }
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(code).map_or_else(|| self.fault("not a Unicode character"), Ok)
    }

    /// `<<WORD` and lines up to one that holds WORD alone, however far indented. `<<-WORD` also takes that line's
    /// indentation off all others, if they all have it.
    pub(super) fn heredoc(&mut self) -> Read<String> {
        self.next();
        if !self.take('<') {
            return self.fault("expected a value");
        }
        let unindent = self.take('-');
        let word = self.word();
        if word.is_empty() || !(self.rest_of_line().trim().is_empty() && self.take('\n')) {
            return self.fault("expected a word alone after '<<'");
        }
        let mut lines = Vec::new();
        loop {
            let line = self.rest_of_line();
            if line.trim() == word {
                let indent = line.find(|c: char| !c.is_whitespace()).and_then(|n| line.get(..n)).unwrap_or_default();
                let strip = unindent && lines.iter().all(|l: &&str| l.starts_with(indent));
                let keep = |l: &str| if strip { l.strip_prefix(indent).unwrap_or(l).to_owned() } else { l.to_owned() };
                return Ok(lines.iter().map(|l| keep(l) + "\n").collect());
            }
            lines.push(line);
            if !self.take('\n') {
                return self.fault("a heredoc is not closed");
            }
        }
    }
}
