//! A value of a configuration file that knows where it stands.

use std::fmt;

use serde_json::{Map, Number, Value};

/// The deepest nesting that is read.
pub const DEEPEST: usize = 32;

/// A value, and the byte of the text that it begins at.
pub struct Node {
    /// The value.
    pub content: Content,
    /// Where it begins.
    pub at: usize,
}

/// What a value is.
pub enum Content {
    /// Nothing, as if the key were not there.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Node>),
    /// An object, in the order of the file.
    Object(Vec<Entry>),
}

/// A key and its value.
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub at: usize,
    /// The value.
    pub value: Node,
}

/// Why a text is not what its format asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where.
    pub at: usize,
    /// One sentence.
    pub message: String,
    /// What the user can do.
    pub hint: Option<&'static str>,
}

impl SyntaxError {
    /// An error without a hint.
    pub fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    /// What is said of values that lie deeper than [`DEEPEST`].
    pub fn too_deep(at: usize) -> Self {
        Self::new(at, format!("the values are nested more than {DEEPEST} deep"))
    }
}

impl Node {
    /// What the value is, in words.
    pub fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "nothing",
            Content::Flag(_) => "true or false",
            Content::Number(_) => "a number",
            Content::Text(_) => "a string",
            Content::List(_) => "a list",
            Content::Object(_) => "an object",
        }
    }

    /// Whether there is a value at all.
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Null)
    }

    /// The value of a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let found = self.entries().iter().find(|entry| entry.key == key)?;
        (!found.value.is_null()).then_some(&found.value)
    }

    /// The same, taken out.
    pub fn into_value(self, key: &str) -> Option<Self> {
        match self.content {
            Content::Object(entries) => {
                entries.into_iter().find(|entry| entry.key == key).map(|entry| entry.value)
            }
            _ => None,
        }
    }

    /// The object without some of its keys.
    pub fn without(mut self, left_out: &dyn Fn(&str) -> bool) -> Self {
        if let Content::Object(entries) = &mut self.content {
            entries.retain(|entry| !left_out(&entry.key));
        }
        self
    }

    /// The keys and values, if this is an object.
    pub fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Object(entries) => entries,
            _ => &[],
        }
    }

    /// The items, if this is a list.
    pub fn items(&self) -> &[Self] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }

    /// The string, if this is one.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// `true` or `false`, if this is one of them.
    pub fn flag(&self) -> Option<bool> {
        match self.content {
            Content::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    /// The number, if this is one that is whole and not negative.
    pub fn count(&self) -> Option<u64> {
        match &self.content {
            Content::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// The port, if this is one.
    pub fn port(&self) -> Option<u16> {
        self.count().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
    }

    /// The value without its places.
    pub fn value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Flag(flag) => Value::Bool(*flag),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => items.iter().map(Self::value).collect(),
            Content::Object(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.value.value()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }
}

impl From<&Value> for Node {
    /// A value that stands nowhere.
    fn from(value: &Value) -> Self {
        let content = match value {
            Value::Null => Content::Null,
            Value::Bool(flag) => Content::Flag(*flag),
            Value::Number(number) => Content::Number(number.clone()),
            Value::String(text) => Content::Text(text.clone()),
            Value::Array(items) => Content::List(items.iter().map(Self::from).collect()),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| Entry {
                    key: key.clone(),
                    at: 0,
                    value: Self::from(value),
                };
                Content::Object(map.iter().map(entry).collect())
            }
        };
        Self { content, at: 0 }
    }
}

impl fmt::Debug for Node {
    /// What may be secret is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({} at {})", self.kind(), self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_node_is_not_in_its_debug_form() {
        let node = Node { content: Content::Text("secret".to_owned()), at: 7 };
        assert_eq!(format!("{node:?}"), "Node(a string at 7)");
    }
}
