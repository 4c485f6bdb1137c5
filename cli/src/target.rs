//! `-t TYPE/NAME`.

use std::fmt;
use std::str::FromStr;

use crate::failure::{Failure, nearest};

/// A Docker container that is to be stood in for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetName {
    /// Its name or the beginning of its id.
    pub container: String,
}

/// Kinds of a cluster, which are known and not there yet.
const CLUSTER_KINDS: &[&str] = &[
    "pod",
    "deployment",
    "statefulset",
    "daemonset",
    "replicaset",
    "job",
    "cronjob",
    "service",
    "rollout",
];

/// Why a target cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetNameError {
    /// No slash, or nothing on one side of it.
    #[error("the target {0:?} is not TYPE/NAME")]
    Form(String),
    /// A kind that lives in a cluster.
    #[error("a target of type {0:?} is not supported yet")]
    NotYet(String),
    /// A kind that nobody knows.
    #[error("there is no target of type {0:?}")]
    UnknownKind(String),
}

impl From<TargetNameError> for Failure {
    fn from(error: TargetNameError) -> Self {
        let supported = "supported is a running container: -t container/NAME".to_owned();
        let hint = match &error {
            TargetNameError::Form(text) if !text.contains('/') && !text.is_empty() => {
                format!("did you mean -t container/{text}?")
            }
            TargetNameError::UnknownKind(kind) if !nearest(kind, ["container"]).is_empty() => {
                "did you mean container?".to_owned()
            }
            _ => supported,
        };
        Failure::new(error.to_string()).hint(hint)
    }
}

impl FromStr for TargetName {
    type Err = TargetNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || TargetNameError::Form(text.to_owned());
        let (kind, name) = text.split_once('/').ok_or_else(form)?;
        match kind {
            "" => Err(form()),
            "container" if name.is_empty() || name.contains('/') => Err(form()),
            "container" => Ok(Self { container: name.to_owned() }),
            kind if CLUSTER_KINDS.contains(&kind) => Err(TargetNameError::NotYet(kind.to_owned())),
            kind => Err(TargetNameError::UnknownKind(kind.to_owned())),
        }
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container/{}", self.container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        text.parse::<TargetName>().expect_err(text).into()
    }

    #[test]
    fn a_container_is_named_by_its_name() {
        let target: TargetName = "container/orders".parse().expect("a target");
        assert_eq!(
            (target.container.as_str(), target.to_string()),
            ("orders", "container/orders".into())
        );
    }

    #[test]
    fn other_words_are_explained() {
        assert_eq!(failure("orders").hint.as_deref(), Some("did you mean -t container/orders?"));
        assert_eq!(failure("pod/x").sentence, "a target of type \"pod\" is not supported yet");
        assert_eq!(failure("containr/x").hint.as_deref(), Some("did you mean container?"));
        assert!(failure("container/").sentence.ends_with("is not TYPE/NAME"));
        assert!(failure("container/a/container/b").sentence.ends_with("is not TYPE/NAME"));
    }
}
