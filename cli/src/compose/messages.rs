//! What a provider says to compose: JSON lines on standard output.

use std::io::{self, BufRead, Write};

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::settings::variable;

/// What compose says that it understands; older versions say nothing.
const MESSAGES: &str = "COMPOSE_PROVIDER_MESSAGES";
/// A question for a service's definition.
const DEFINITION: &str = "get-service-config";
/// How a variable goes to the app under its own name.
const VARIABLE: &str = "rawsetenv";

/// Whether compose says that it understands a kind of messages.
pub fn understands(kind: &str) -> bool {
    variable(MESSAGES).is_some_and(|known| known.split(',').any(|word| word == kind))
}

/// Whether compose says what it understands, and variables are not among that.
pub fn lacks_variables() -> Option<bool> {
    variable(MESSAGES).map(|_| !understands(VARIABLE))
}

/// What compose reads, to the end of this process.
pub struct Compose<W: Write = io::Stdout> {
    out: W,
}

impl Compose {
    /// On standard output.
    pub fn new() -> Self {
        Self { out: io::stdout() }
    }
}

impl<W: Write> Compose<W> {
    /// Shows a line beside the service's name.
    pub fn info(&mut self, text: &str) {
        self.say("info", text);
    }

    /// Says something that compose shows to those who ask for more.
    pub fn debug(&mut self, text: &str) {
        self.say("debug", text);
    }

    /// Gives a variable to the services that depend on this one.
    pub fn variable(&mut self, name: &str, value: &str) {
        self.say(VARIABLE, &format!("{name}={value}"));
    }

    /// The same, with this service's name before the variable's.
    pub fn own_variable(&mut self, name: &str, value: &str) {
        self.say("setenv", &format!("{name}={value}"));
    }

    /// Asks for the definition of this service, as compose has resolved it; nothing where compose
    /// does not say that it answers such a question.
    ///
    /// # Errors
    /// It does not answer.
    pub fn definition(&mut self, service: &str, answers: &mut impl BufRead) -> io::Result<Value> {
        if !understands(DEFINITION) {
            return Ok(Value::Null);
        }
        self.say(DEFINITION, service);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Ends the operation. The first line is shown beside the service's name, all of it at the end.
    pub fn error(&mut self, failure: &Failure) {
        let causes = failure.causes.iter().map(|cause| format!(": {cause}"));
        let hint = failure.hint.iter().map(|hint| format!("\nhint: {hint}"));
        let text: String =
            [failure.sentence.clone()].into_iter().chain(causes).chain(hint).collect();
        self.say("error", &text);
    }

    fn say(&mut self, kind: &str, text: &str) {
        let line = json!({"type": kind, "message": text});
        // Compose that is gone kills us as well.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_hint_below() {
        let mut compose = Compose { out: Vec::new() };
        compose.error(&Failure::new("no target").because("it is gone").hint("see 'mirrord ls'"));
        compose.variable("A", "1\n2=3");
        let said = String::from_utf8(compose.out).expect("text");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(
            lines,
            [
                r#"{"message":"no target: it is gone\nhint: see 'mirrord ls'","type":"error"}"#,
                r#"{"message":"A=1\n2=3","type":"rawsetenv"}"#,
            ]
        );
    }
}
