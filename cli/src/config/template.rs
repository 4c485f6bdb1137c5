//! `{{ get_env(name="X", default="y") }}`: the part of the template language that stands for
//! variables of this machine's environment, and `{# comments #}`.

use std::ops::Range;

use super::node::SyntaxError;

const SUPPORTED: &str = "supported is {{ get_env(name=\"NAME\", default=\"value\") }}";

/// How a variable of the environment is read.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A text whose templates are filled in, and which knows where it comes from.
pub struct Rendered {
    source: String,
    text: String,
    /// What was filled in: where it stands now, and where its template stood.
    filled: Vec<(Range<usize>, Range<usize>)>,
}

/// A place for people to look at: both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

impl Position {
    /// The place of a byte of a text.
    pub fn of(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_begins = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_begins..].chars().count() + 1,
        }
    }
}

impl Rendered {
    /// Fills the templates of a text in; the place of an error is one of the text.
    pub fn new(source: String, lookup: Lookup<'_>) -> Result<Self, SyntaxError> {
        let mut text = String::with_capacity(source.len());
        let mut filled = Vec::new();
        let mut done = 0;
        while let Some(begin) = next_tag(&source, done) {
            text.push_str(&source[done..begin]);
            let end = end_of(&source, begin)?;
            let value = evaluate(&source[begin..end], begin, lookup)?;
            filled.push((text.len()..text.len() + value.len(), begin..end));
            text.push_str(&value);
            done = end;
        }
        text.push_str(&source[done..]);
        Ok(Self { source, text, filled })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where in the file a byte of the text comes from.
    pub fn position(&self, at: usize) -> Position {
        let last = self.filled.iter().rfind(|(now, _)| now.start <= at);
        let at = match last {
            None => at,
            Some((now, source)) if at < now.end => source.start,
            Some((now, source)) => at - now.end + source.end,
        };
        Position::of(&self.source, at)
    }
}

fn next_tag(source: &str, from: usize) -> Option<usize> {
    ["{{", "{%", "{#"].iter().filter_map(|tag| source[from..].find(tag)).min().map(|at| from + at)
}

/// The end of the template that begins at `begin`. What stands in quotes does not end it.
fn end_of(source: &str, begin: usize) -> Result<usize, SyntaxError> {
    let rest = &source[begin..];
    let comment = rest.starts_with("{#");
    let closing = if comment { "#}" } else { "}}" };
    let mut quote = None;
    for (at, character) in rest.char_indices().skip(2) {
        match quote {
            None if rest[at..].starts_with(closing) => return Ok(begin + at + 2),
            None if !comment && "\"'`".contains(character) => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ => {}
        }
        if rest.starts_with("{%") {
            break;
        }
    }
    let message = match rest.starts_with("{%") {
        true => "statements are not supported in templates",
        false => "this template has no end",
    };
    Err(SyntaxError { at: begin, message: message.to_owned(), hint: Some(SUPPORTED) })
}

fn evaluate(template: &str, at: usize, lookup: Lookup<'_>) -> Result<String, SyntaxError> {
    if template.starts_with("{#") {
        return Ok(String::new());
    }
    let inner = template[2..template.len() - 2].trim();
    let call = Call::of(inner).ok_or_else(|| SyntaxError {
        at,
        message: format!("the template {template} is not supported"),
        hint: Some(SUPPORTED),
    })?;
    lookup(&call.name).or(call.default).ok_or_else(|| SyntaxError {
        at,
        message: format!("the environment variable {} is not set", call.name),
        hint: Some("set it, or give get_env a default"),
    })
}

/// `get_env(name=…, default=…)`.
struct Call {
    name: String,
    default: Option<String>,
}

impl Call {
    fn of(text: &str) -> Option<Self> {
        let arguments = text.strip_prefix("get_env")?.trim_start().strip_prefix('(')?;
        let mut rest = arguments.strip_suffix(')')?.trim();
        let (mut name, mut default) = (None, None);
        while !rest.is_empty() {
            let (key, behind) = rest.split_once('=')?;
            let (value, behind) = argument(behind.trim_start())?;
            match key.trim() {
                "name" if name.is_none() => name = Some(value),
                "default" if default.is_none() => default = Some(value),
                _ => return None,
            }
            let behind = behind.trim_start();
            rest = match behind.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if behind.is_empty() => "",
                None => return None,
            };
        }
        Some(Self { name: name?, default })
    }
}

/// The first argument's value, and what stands behind it. A number or a word needs no quotes.
fn argument(text: &str) -> Option<(String, &str)> {
    let first = text.chars().next()?;
    if "\"'`".contains(first) {
        let (value, behind) = text[1..].split_once(first)?;
        return Some((value.to_owned(), behind));
    }
    let is_part = |part: char| part.is_ascii_alphanumeric() || "-._".contains(part);
    let end = text.find(|part| !is_part(part)).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> Result<Rendered, SyntaxError> {
        let variables = |name: &str| match name {
            "A" => Some("alpha".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Rendered::new(text.to_owned(), &variables)
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        for (template, expected) in [
            ("x {{ get_env(name=\"A\") }} y", "x alpha y"),
            ("{{get_env(default='d', name='A')}}", "alpha"),
            ("{{ get_env( name = \"B\" , default = \"a }} b\" ) }}", "a }} b"),
            ("{{ get_env(name=`B`, default=80,) }}", "80"),
            ("{{ get_env(name=\"EMPTY\", default=\"d\") }}", ""),
            ("a{# \"nothing }} #}b", "ab"),
            ("{\"a\": {\"b\": {}}}", "{\"a\": {\"b\": {}}}"),
        ] {
            assert_eq!(render(template).expect(template).text(), expected);
        }
    }

    #[test]
    fn what_is_not_supported_is_named_with_its_place() {
        for (template, message) in [
            ("ab {{ key }}", "the template {{ key }} is not supported"),
            ("ab {{ get_env(name=\"A\") | lower }}", "| lower }} is not supported"),
            ("ab {{ get_env(default=\"A\") }}", "is not supported"),
            ("ab {{ get_env(name=\"A\" default=\"b\") }}", "is not supported"),
            ("ab {{ get_env(name=\"B\") }}", "the environment variable B is not set"),
            ("ab {% if x %}", "statements are not supported"),
            ("ab {{ get_env(", "no end"),
            ("ab {{", "no end"),
        ] {
            let error = render(template).err().expect(template);
            assert!(error.at == 3 && error.message.contains(message), "{template}: {error:?}");
        }
    }

    #[test]
    fn places_are_those_of_the_file() {
        let source = "é {{ get_env(name=\"A\") }} b\nc {{ get_env(name=\"A\") }} d";
        let rendered = render(source).expect("a text");
        let find = |part: &str| rendered.position(rendered.text().find(part).expect(part));
        assert_eq!(find("é"), Position { line: 1, column: 1 });
        assert_eq!(find("pha"), Position { line: 1, column: 3 });
        assert_eq!(find(" b"), Position { line: 1, column: 26 });
        assert_eq!(find("c "), Position { line: 2, column: 1 });
        assert_eq!(find(" d"), Position { line: 2, column: 26 });
    }
}
