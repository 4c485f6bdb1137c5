//! JSON with comments and trailing commas, as editors write configuration.

use serde_json::Number;

use super::node::{Content, DEEPEST, Entry, Node, SyntaxError};

/// Reads a text; an empty one is nothing.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    reader.skip()?;
    if reader.at == text.len() {
        return Ok(Node { content: Content::Null, at: 0 });
    }
    let node = reader.value()?;
    reader.skip()?;
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.unexpected("the end of the file")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn takes(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn unexpected(&self, expected: &str) -> SyntaxError {
        let found = match self.rest().chars().next() {
            None => "the end of the file".to_owned(),
            Some(found) => format!("{found:?}"),
        };
        SyntaxError::new(self.at, format!("expected {expected}, found {found}"))
    }

    /// Skips white space and comments.
    fn skip(&mut self) -> Result<(), SyntaxError> {
        loop {
            let rest = self.rest();
            self.at +=
                rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{feff}']).len();
            let rest = self.rest();
            if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                let end = rest
                    .find("*/")
                    .ok_or_else(|| SyntaxError::new(self.at, "this comment has no end"))?;
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn value(&mut self) -> Result<Node, SyntaxError> {
        let at = self.at;
        let content = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::list)?,
            Some(b'"') => Content::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node { content, at })
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Content, SyntaxError>,
    ) -> Result<Content, SyntaxError> {
        if self.depth == DEEPEST {
            return Err(SyntaxError::too_deep(self.at));
        }
        self.depth += 1;
        self.at += 1;
        let content = read(self)?;
        self.depth -= 1;
        Ok(content)
    }

    fn object(&mut self) -> Result<Content, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            self.skip()?;
            if self.takes(b'}') {
                return Ok(Content::Object(entries));
            }
            let at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes or }"));
            }
            let key = self.string()?;
            self.skip()?;
            if !self.takes(b':') {
                return Err(self.unexpected("a colon behind the key"));
            }
            self.skip()?;
            let value = self.value()?;
            entries.push(Entry { key, at, value });
            self.skip()?;
            if !self.takes(b',') && self.peek() != Some(b'}') {
                return Err(self.unexpected("a comma or }"));
            }
        }
    }

    fn list(&mut self) -> Result<Content, SyntaxError> {
        let mut items = Vec::new();
        loop {
            self.skip()?;
            if self.takes(b']') {
                return Ok(Content::List(items));
            }
            items.push(self.value()?);
            self.skip()?;
            if !self.takes(b',') && self.peek() != Some(b']') {
                return Err(self.unexpected("a comma or ]"));
            }
        }
    }

    /// A string; its escapes are serde_json's.
    fn string(&mut self) -> Result<String, SyntaxError> {
        let begin = self.at;
        let bytes = self.text.as_bytes();
        let mut end = begin + 1;
        loop {
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(b'\n') | None => {
                    return Err(SyntaxError::new(begin, "this string has no end on its line"));
                }
                Some(_) => end += 1,
            }
        }
        self.at = end + 1;
        serde_json::from_str(&self.text[begin..self.at]).map_err(|_| {
            SyntaxError::new(begin, "this string has an escape that JSON does not know")
        })
    }

    fn number(&mut self) -> Result<Content, SyntaxError> {
        let rest = self.rest();
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
        let length = rest.bytes().take_while(|byte| is_part(*byte)).count();
        let number: Number = serde_json::from_str(&rest[..length])
            .map_err(|_| SyntaxError::new(self.at, "this is not a number of JSON"))?;
        self.at += length;
        Ok(Content::Number(number))
    }

    fn word(&mut self) -> Result<Content, SyntaxError> {
        let length = self.rest().bytes().take_while(u8::is_ascii_alphabetic).count();
        let content = match &self.rest()[..length] {
            "null" => Content::Null,
            "true" => Content::Flag(true),
            "false" => Content::Flag(false),
            _ => return Err(self.unexpected("a value")),
        };
        self.at += length;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_those_of_json() {
        let text = r#"{"a": [1, -2.5, 1e3, true, null], "b": {"c": "x\né\u00e9\ud83d\ude00/"}}"#;
        let expected: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(parse(text).expect("the same").value(), expected);
    }

    #[test]
    fn comments_and_trailing_commas_are_fine() {
        let text = "// one\n{ /* two */ \"a\": [1, 2,], // three\n}\n";
        assert_eq!(parse(text).expect("a value").value(), json!({"a": [1, 2]}));
        assert!(parse("  // nothing").expect("nothing").is_null());
    }

    #[test]
    fn places_are_where_keys_and_values_begin() {
        let text = "{ \"a\":  true }";
        let node = parse(text).expect("a value");
        assert_eq!((node.entries()[0].at, node.entries()[0].value.at), (2, 8));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let deep = "[".repeat(100);
        for (text, at, part) in [
            ("{a: 1}", 1, "a key in double quotes"),
            ("{\"a\" 1}", 5, "a colon"),
            ("{\"a\": 1 \"b\": 2}", 8, "a comma or }"),
            ("[1 2]", 3, "a comma or ]"),
            ("[nul]", 1, "a value"),
            ("[01]", 1, "not a number"),
            ("{\"a\": \"x\n\"}", 6, "no end on its line"),
            ("[\"\\q\"]", 1, "escape"),
            ("{} x", 3, "the end of the file, found 'x'"),
            ("{", 1, "found the end of the file"),
            ("[\"\\", 1, "no end"),
            ("/* x", 0, "no end"),
            (&deep, 32, "nested more than 32"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.at == at && error.message.contains(part), "{text}: {error:?}");
        }
    }
}
