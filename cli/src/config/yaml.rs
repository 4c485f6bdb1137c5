//! YAML, without what makes a configuration hard to read: anchors, tags, several documents.

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};
use serde_json::Number;

use super::node::{Content, DEEPEST, Entry, Node, SyntaxError};

/// Reads a text; an empty one is nothing.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut builder = Builder { text, open: Vec::new(), done: None };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| broken(text, &error))?;
        builder.take(event, &span)?;
    }
    Ok(builder.done.unwrap_or(Node { content: Content::Null, at: 0 }))
}

fn broken(text: &str, error: &ScanError) -> SyntaxError {
    SyntaxError::new(offset(text, error.marker()), error.info())
}

fn offset(text: &str, marker: &Marker) -> usize {
    let counted = || text.char_indices().nth(marker.index()).map_or(text.len(), |(at, _)| at);
    marker.byte_offset().unwrap_or_else(counted)
}

/// A list or an object whose end has not come yet.
struct Open {
    node: Node,
    /// The key whose value comes next.
    key: Option<(String, usize)>,
}

struct Builder<'a> {
    text: &'a str,
    open: Vec<Open>,
    done: Option<Node>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), SyntaxError> {
        let at = offset(self.text, &span.start);
        match event {
            Event::Alias(_) => Err(no_anchors(at)),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(_, anchor, _)
            | Event::MappingStart(_, anchor, _)
                if anchor != 0 =>
            {
                Err(no_anchors(at))
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => {
                Err(SyntaxError::new(at, "tags are not supported here"))
            }
            Event::Scalar(text, style, ..) => self.scalar(&text, style, at),
            Event::SequenceStart(..) => self.begin(Content::List(Vec::new()), at),
            Event::MappingStart(..) => self.begin(Content::Object(Vec::new()), at),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.add(open.node),
                None => Ok(()),
            },
            Event::DocumentStart(_) if self.done.is_some() => {
                Err(SyntaxError::new(at, "a second document begins here, and only one is read"))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, content: Content, at: usize) -> Result<(), SyntaxError> {
        if self.open.len() == DEEPEST {
            return Err(SyntaxError::too_deep(at));
        }
        self.open.push(Open { node: Node { content, at }, key: None });
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: usize) -> Result<(), SyntaxError> {
        if let Some(Open { node: Node { content: Content::Object(_), .. }, key: key @ None }) =
            self.open.last_mut()
        {
            *key = Some((text.to_owned(), at));
            return Ok(());
        }
        let content = match style {
            ScalarStyle::Plain => plain(text),
            _ => Content::Text(text.to_owned()),
        };
        self.add(Node { content, at })
    }

    fn add(&mut self, value: Node) -> Result<(), SyntaxError> {
        let Some(open) = self.open.last_mut() else {
            self.done = Some(value);
            return Ok(());
        };
        match (&mut open.node.content, open.key.take()) {
            (Content::Object(entries), Some((key, at))) => entries.push(Entry { key, at, value }),
            (Content::List(items), _) => items.push(value),
            _ => return Err(SyntaxError::new(value.at, "a key must be a plain word")),
        }
        Ok(())
    }
}

fn no_anchors(at: usize) -> SyntaxError {
    SyntaxError::new(at, "anchors and aliases are not supported here")
}

/// A scalar without quotes, by YAML's core schema.
fn plain(text: &str) -> Content {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Content::Null,
        "true" | "True" | "TRUE" => return Content::Flag(true),
        "false" | "False" | "FALSE" => return Content::Flag(false),
        _ => {}
    }
    number(text).map_or_else(|| Content::Text(text.to_owned()), Content::Number)
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        return None;
    }
    let radix = |digits: &str, radix| i64::from_str_radix(digits, radix).ok().map(Number::from);
    match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(digits), _) => return radix(digits, 16),
        (_, Some(digits)) => return radix(digits, 8),
        _ => {}
    }
    let whole = || text.parse::<u64>().map(Number::from).ok();
    let negative = || text.parse::<i64>().map(Number::from).ok();
    whole().or_else(negative).or_else(|| text.parse().ok().and_then(Number::from_f64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_those_of_the_core_schema() {
        let text = "# a comment\na: [1, -2, 0x10, 1.5, yes, 'true', \"1\", ~]\nb:\n  - true\n  -\n\
                    c: |\n  two\n  lines\nd: {e: 1.2.3, 5: x}\n";
        let expected = json!({
            "a": [1, -2, 16, 1.5, "yes", "true", "1", null], "b": [true, null],
            "c": "two\nlines\n", "d": {"e": "1.2.3", "5": "x"},
        });
        assert_eq!(parse(text).expect("YAML").value(), expected);
        assert!(parse("").expect("nothing").is_null());
        assert!(parse("# nothing\n").expect("nothing").is_null());
    }

    #[test]
    fn places_are_where_keys_and_values_begin() {
        let node = parse("é: 1\na:\n  b: true\n").expect("a value");
        let entry = &node.entries()[1].value.entries()[0];
        assert_eq!((entry.at, entry.value.at), (11, 14));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        for (text, at, part) in [
            ("a: &x 1\nb: *x\n", 6, "anchors"),
            ("a: !!str 1\n", 9, "tags"),
            ("a: 1\n---\nb: 2\n", 5, "a second document"),
            ("? [a]\n: 1\n", 2, "a plain word"),
            (&deep, 32, "nested more than 32"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.at == at && error.message.contains(part), "{text}: {error:?}");
        }
        let error = parse("a: 1\n b: 2\n").expect_err("broken");
        assert!(error.at > 0, "{error:?}");
        assert!(parse("a: [1\n").is_err() && parse("a: b: c").is_err());
    }
}
