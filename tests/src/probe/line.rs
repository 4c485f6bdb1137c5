//! What the probe prints, and how an error of the system looks in it.

use std::io::{self, Write};

use nix::errno::Errno;
use serde_json::{Map, Value, json};

/// What a command answers.
pub type Reply = Result<Value, io::Error>;

/// One printed line.
pub struct Line(Map<String, Value>);

impl Line {
    /// A line about something that happened on its own.
    #[must_use]
    pub fn event(name: &str, details: Value) -> Self {
        let mut fields = Map::new();
        fields.insert("event".into(), name.into());
        merge(&mut fields, details);
        Self(fields)
    }

    /// A command's answer: its fields and `ok`, or `ok: false` and the error's name.
    #[must_use]
    pub fn reply(reply: Reply) -> Self {
        let mut fields = Map::new();
        match reply {
            Ok(details) => {
                fields.insert("ok".into(), true.into());
                merge(&mut fields, details);
            }
            Err(error) => {
                fields.insert("ok".into(), false.into());
                merge(&mut fields, describe(&error));
            }
        }
        Self(fields)
    }

    /// The same line with the id of the question.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.0.insert("id".into(), id.into());
        self
    }

    /// Whether the command did what it was asked.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.0.get("ok") == Some(&Value::Bool(true))
    }

    /// Writes it whole, whoever else is writing. A reader that is gone is no concern of the probe.
    pub fn print(self) {
        let mut text = Value::Object(self.0).to_string();
        text.push('\n');
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes());
        let _ = stdout.flush();
    }
}

/// `errno` by its name (`ECONNREFUSED`), or the kind where there is none.
pub fn describe(error: &io::Error) -> Value {
    let name = match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => format!("{:?}", error.kind()),
    };
    json!({ "errno": name, "message": error.to_string() })
}

fn merge(fields: &mut Map<String, Value>, details: Value) {
    match details {
        Value::Object(more) => fields.extend(more),
        Value::Null => {}
        other => {
            fields.insert("value".into(), other);
        }
    }
}

/// An error of the caller's making.
pub fn misuse(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.into())
}
