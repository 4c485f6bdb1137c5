//! The session's secret.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The secret that both ends of a tunnel know; it prints as `…`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Wraps a secret; it must be printable ASCII, since it travels in an HTTP header.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares in a time that depends on the length alone.
    pub fn matches(&self, other: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), other.as_bytes());
        if ours.is_empty() || ours.len() != theirs.len() {
            return false;
        }
        let difference = ours.iter().zip(theirs).fold(0u8, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_prints_its_secret() {
        let token = Token::new("hunter2");
        assert_eq!(format!("{token:?}"), "…");
        assert!(!format!("{:?}", Some(&token)).contains("hunter"));
    }

    #[test]
    fn a_token_matches_itself_alone() {
        let token = Token::new("abcdef");
        assert!(token.matches("abcdef"));
        for other in ["", "abcdeg", "abcde", "abcdefg"] {
            assert!(!token.matches(other), "{other}");
        }
        assert!(!Token::new("").matches(""), "an empty token opens nothing");
    }
}
