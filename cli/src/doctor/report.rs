//! How what was found is told.

use std::fmt::Write;

use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it belongs to.
    pub topic: String,
    /// What was found.
    pub text: String,
    /// Whether that is as it should be.
    pub state: State,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is.
    Ok,
    /// It is not.
    Missing,
    /// It need not be, or cannot be told.
    Note,
}

impl Item {
    /// Something that is as it should be.
    pub fn fine(topic: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(topic.into(), text.into(), State::Ok)
    }

    /// Something that is not.
    pub fn missing(topic: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(topic.into(), text.into(), State::Missing)
    }

    fn new(topic: String, text: String, state: State) -> Self {
        Self { topic, text, state, hint: None }
    }

    /// The same of what is not needed: it is no fault that it is missing.
    pub fn spare(self) -> Self {
        match self.state {
            State::Missing => Self { state: State::Note, ..self },
            _ => self,
        }
    }

    /// Says what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure, as something that is not as it should be.
    pub fn failure(topic: impl Into<String>, failure: &Failure) -> Self {
        let mut parts = vec![failure.sentence.clone()];
        parts.extend(failure.causes.iter().cloned());
        Self { hint: failure.hint.clone(), ..Self::missing(topic, parts.join(": ")) }
    }

    /// Something to know.
    pub fn note(topic: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(topic.into(), text.into(), State::Note)
    }
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of their topics.
    pub items: Vec<Item>,
    /// The Roles of which something is missing: mode and YAML.
    pub roles: Vec<(&'static str, String)>,
    /// Whether sessions can run.
    pub fit: bool,
}

impl Report {
    /// As lines.
    pub fn text(&self, color: bool) -> String {
        let paint = |code: &str, mark: &str| match color {
            true => format!("\x1b[{code}m{mark}\x1b[0m"),
            false => mark.to_owned(),
        };
        let (mut text, mut topic) = (String::new(), "");
        // Writing to a string does not fail.
        for item in &self.items {
            if item.topic != topic {
                topic = &item.topic;
                let _ = writeln!(text, "{topic}");
            }
            let mark = match item.state {
                State::Ok => paint("32", "✓"),
                State::Missing => paint("31", "✗"),
                State::Note => paint("33", "·"),
            };
            let _ = writeln!(text, "  {mark} {}", item.text);
            if let Some(hint) = &item.hint {
                let _ = writeln!(text, "    {} {hint}", paint("2", "→"));
            }
        }
        for (mode, yaml) in &self.roles {
            let _ =
                write!(text, "\nwhat mode {mode} needs (mirrord doctor --role {mode}):\n\n{yaml}");
        }
        let verdict = if self.fit { "sessions can run" } else { "sessions cannot run" };
        let _ = writeln!(text, "\n{verdict}");
        text
    }

    /// As one object.
    pub fn json(&self) -> String {
        let roles: serde_json::Map<String, serde_json::Value> =
            self.roles.iter().map(|(mode, yaml)| ((*mode).to_owned(), json!(yaml))).collect();
        format!("{:#}\n", json!({ "ok": self.fit, "items": self.items, "roles": roles }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_from_above() {
        let report = Report {
            items: vec![
                Item::fine("engine", "Docker Engine 29"),
                Item::fine("mode job", "list pods in namespace shop"),
                Item::missing("mode job", "create jobs.batch in namespace shop"),
                Item::note("left over", "the container x").hint("--fix removes it"),
            ],
            roles: vec![("job", "kind: Role\n".to_owned())],
            fit: false,
        };
        insta::assert_snapshot!(report.text(false), @r"
        engine
          ✓ Docker Engine 29
        mode job
          ✓ list pods in namespace shop
          ✗ create jobs.batch in namespace shop
        left over
          · the container x
            → --fix removes it

        what mode job needs (mirrord doctor --role job):

        kind: Role

        sessions cannot run
        ");
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("json");
        assert_eq!((&json["ok"], &json["items"][2]["state"]), (&json!(false), &json!("missing")));
    }
}
