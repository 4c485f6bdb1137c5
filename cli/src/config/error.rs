//! What is wrong with a configuration file.

use std::fmt;
use std::io;

use super::template::Position;
use crate::failure::Failure;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// Where in it.
    pub position: Position,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.position.line, self.position.column)
    }
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none.
    #[error("there is no configuration file {0}")]
    Missing(String),
    /// It cannot be read.
    #[error("cannot read the configuration file {file}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// It is too long.
    #[error("the configuration file {file} is longer than {limit} KiB")]
    TooLong {
        /// The file.
        file: String,
        /// How long it may be.
        limit: u64,
    },
    /// It is not text.
    #[error("the configuration file {0} is not UTF-8")]
    NotText(String),
    /// Its name does not say what it is.
    #[error("the configuration file {0} is none of .json, .yaml, .yml and .toml")]
    Format(String),
    /// It is not what its name says, or a template in it cannot be filled in.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// One sentence.
        message: String,
        /// What the user can do.
        hint: Option<&'static str>,
    },
    /// A key that nobody knows.
    #[error("{place}: there is no key {key}")]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key with its path.
        key: String,
        /// The known one that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A key that stands twice in one object.
    #[error("{place}: {key} is given twice")]
    Twice {
        /// Where the second one is.
        place: Place,
        /// The key with its path.
        key: String,
    },
    /// A value of the wrong kind.
    #[error("{place}: {key} must be {expected}; here is {found}")]
    Kind {
        /// Where.
        place: Place,
        /// The key with its path.
        key: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A value that cannot be used.
    #[error("{place}: {key}: {message}")]
    Value {
        /// Where.
        place: Place,
        /// The key with its path.
        key: &'static str,
        /// One sentence.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// Several mistakes.
    #[error("the configuration file {file} has {} mistakes", mistakes.len())]
    Several {
        /// The file.
        file: String,
        /// They.
        mistakes: Vec<ConfigError>,
    },
}

impl ConfigError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) => {
                Some("give -f, or MIRRORD_CONFIG_FILE, a file that exists".to_owned())
            }
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                Some(format!("did you mean {nearest}?"))
            }
            Self::Syntax { hint, .. } => hint.map(str::to_owned),
            Self::Value { hint, .. } => hint.clone(),
            _ => None,
        }
    }

    /// The sentence and the hint.
    pub fn whole(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{self} ({hint})"),
            None => self.to_string(),
        }
    }

    /// Each mistake by itself.
    pub fn mistakes(&self) -> Vec<String> {
        match self {
            Self::Several { mistakes, .. } => mistakes.iter().map(Self::whole).collect(),
            one => vec![one.whole()],
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = match &error {
            ConfigError::Several { .. } => {
                error.mistakes().into_iter().fold(Self::new(error.to_string()), Self::because)
            }
            ConfigError::Read { source, .. } => Self::caused_by(error.to_string(), source),
            _ => Self::new(error.to_string()),
        };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
