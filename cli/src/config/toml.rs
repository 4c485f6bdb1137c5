//! TOML.

use serde_json::Number;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::node::{Content, DEEPEST, Entry, Node, SyntaxError};

/// Reads a text; an empty one is an empty object.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        SyntaxError::new(at, error.message().lines().collect::<Vec<_>>().join(", "))
    })?;
    let at = table.span().start;
    Ok(Node { content: object(table.get_ref(), 0)?, at })
}

fn object(table: &DeTable<'_>, depth: usize) -> Result<Content, SyntaxError> {
    let mut entries = table
        .iter()
        .map(|(key, value)| {
            let at = key.span().start;
            Ok(Entry { key: key.get_ref().to_string(), at, value: node(value, depth + 1)? })
        })
        .collect::<Result<Vec<_>, SyntaxError>>()?;
    entries.sort_by_key(|entry| entry.at);
    Ok(Content::Object(entries))
}

fn node(value: &Spanned<DeValue<'_>>, depth: usize) -> Result<Node, SyntaxError> {
    let at = value.span().start;
    if depth == DEEPEST {
        return Err(SyntaxError::too_deep(at));
    }
    let content = match value.get_ref() {
        DeValue::String(text) => Content::Text(text.to_string()),
        DeValue::Boolean(flag) => Content::Flag(*flag),
        DeValue::Datetime(date) => Content::Text(date.to_string()),
        DeValue::Integer(number) => {
            let whole = i64::from_str_radix(number.as_str(), number.radix());
            let too_big = |_| SyntaxError::new(at, "this number is too big");
            Content::Number(whole.map_err(too_big)?.into())
        }
        DeValue::Float(number) => {
            let float = number.as_str().parse().ok().and_then(Number::from_f64);
            let endless = || SyntaxError::new(at, "this number is not finite");
            Content::Number(float.ok_or_else(endless)?)
        }
        DeValue::Array(items) => {
            let items = items.iter().map(|item| node(item, depth + 1));
            Content::List(items.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => object(table, depth)?,
    };
    Ok(Node { content, at })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_those_of_toml() {
        let text = "a = [1, -2, 0x10, 1.5, true]\nb.c = 'x'\n[d]\ne = 2020-01-01\n[[d.f]]\ng = 1\n";
        let expected = json!({
            "a": [1, -2, 16, 1.5, true], "b": {"c": "x"},
            "d": {"e": "2020-01-01", "f": [{"g": 1}]},
        });
        assert_eq!(parse(text).expect("TOML").value(), expected);
        assert!(parse("").expect("an empty object").entries().is_empty());
    }

    #[test]
    fn places_are_where_keys_and_values_begin() {
        let node = parse("[a]\nb = true\n").expect("a value");
        let entry = &node.entries()[0].value.entries()[0];
        assert_eq!((entry.at, entry.value.at), (4, 8));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let deep = format!("a = {}{}", "[".repeat(40), "]".repeat(40));
        for (text, at) in [("a = ", 4), ("a = 1\na = 2\n", 6), ("a = inf", 4), (&deep, 35)] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error:?}");
        }
    }
}
