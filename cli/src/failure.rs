//! What goes wrong, as the user reads it: one sentence, its causes, a hint that can be acted on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A failure that ends the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence, lower case, no full stop.
    pub sentence: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without causes or hint.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), causes: Vec::new(), hint: None }
    }

    /// A failure with the chain of causes of an error.
    pub fn caused_by(sentence: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut failure = Self::new(sentence);
        let mut cause = Some(error);
        while let Some(error) = cause {
            failure = failure.because(error.to_string());
            cause = error.source();
        }
        failure
    }

    /// Adds a cause, unless the last one already says it.
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        let cause = cause.into();
        let said = self.causes.last().unwrap_or(&self.sentence).contains(&cause);
        if !said {
            self.causes.push(cause);
        }
        self
    }

    /// Says what the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Failure {
    /// The same for the user of another client that has docker's commands.
    pub fn with_program(mut self, program: &str) -> Self {
        if program != "docker" {
            let commands = format!("{program} ");
            self.hint = self.hint.map(|hint| hint.replace("docker ", &commands));
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Failure {}

/// The candidates that look most like what was typed, best first.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut close: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| likeness(typed, candidate).map(|rank| (rank, candidate)))
        .collect();
    close.sort();
    close.into_iter().take(3).map(|(_, candidate)| candidate).collect()
}

fn likeness(typed: &str, candidate: &str) -> Option<usize> {
    if typed.is_empty() {
        return None;
    }
    let distance = edits(typed, candidate);
    let length = typed.chars().count();
    let close = (distance < length && distance <= 1 + length / 4) || mixed_up(typed, candidate);
    let part = (typed.len() > 2 && candidate.contains(typed))
        || (candidate.len() > 2 && typed.contains(candidate));
    (close || part).then_some(if close { distance } else { distance + 100 })
}

/// Whether the same letters stand in another order.
fn mixed_up(a: &str, b: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    a.len() > 1 && sorted(a) == sorted(b)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_comes_first() {
        let names = ["shop-web-1", "web", "db", "wed"];
        assert_eq!(nearest("web", names), ["web", "wed", "shop-web-1"]);
        assert_eq!(nearest("detahc", ["detach", "attach"]), ["detach"]);
        assert_eq!(nearest("evn", ["env", "ip"]), ["env"]);
        assert!(nearest("zzzz", names).is_empty());
    }

    #[test]
    fn a_cause_that_was_already_said_is_not_repeated() {
        let failure = Failure::new("cannot connect: refused").because("refused").because("why");
        assert_eq!(failure.causes, ["why"]);
    }
}
