//! `mirrord verify-config FILE`: a verdict in JSON.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::Config;
use crate::args::Options;
use crate::failure::Failure;
use crate::settings::{Settings, variable};

/// What is printed.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "type")]
pub enum Verdict {
    /// It can be used.
    Success {
        /// Whose place is taken.
        config: Target,
        /// What is known and not done.
        warnings: Vec<String>,
    },
    /// It can't.
    Fail {
        /// Each mistake with its place.
        errors: Vec<String>,
    },
}

/// The target of a file.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Target {
    /// `TYPE/NAME`, if there is a target.
    path: Option<String>,
    /// Its namespace.
    namespace: Option<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string_pretty(self).map_err(|_| fmt::Error)?)
    }
}

impl Verdict {
    /// Reads and checks a file; what the environment says of targets is left out.
    pub fn of(file: &Path) -> Self {
        let config = match Config::read(file, &variable) {
            Ok(config) => config,
            Err(error) => return Self::Fail { errors: error.mistakes() },
        };
        match Settings::with(&Options::default(), &config, &variable) {
            Ok(settings) => Self::Success {
                config: Target {
                    path: settings.target.map(|target| target.to_string()),
                    namespace: settings.cluster.namespace,
                },
                warnings: settings.warnings,
            },
            Err(failure) => Self::Fail { errors: vec![whole(&failure)] },
        }
    }

    /// Whether the file can be used.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Success { .. })
    }
}

fn whole(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{failure} ({hint})"),
        None => failure.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn verdict(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, text).expect("written");
        let verdict = Verdict::of(&path).to_string();
        verdict.replace(&folder.path().display().to_string(), "DIR")
    }

    #[test]
    fn a_good_file_has_a_target_and_warnings() {
        let text = "target: {path: deploy/a, namespace: b}\ntelemetry: false\n";
        assert_snapshot!(verdict(text), @r#"
        {
          "type": "Success",
          "config": {
            "path": "deployment/a",
            "namespace": "b"
          },
          "warnings": [
            "DIR/a.yaml: telemetry does nothing here"
          ]
        }
        "#);
    }

    #[test]
    fn a_bad_file_has_every_mistake() {
        assert_snapshot!(verdict("targt: pod/a\nagent: {ttl: no}\n"), @r#"
        {
          "type": "Fail",
          "errors": [
            "DIR/a.yaml:1:1: there is no key targt (did you mean target?)",
            "DIR/a.yaml:2:14: agent.ttl must be a whole number; here is a string"
          ]
        }
        "#);
        assert_snapshot!(verdict("target: {path: pod}\n"), @r#"
        {
          "type": "Fail",
          "errors": [
            "DIR/a.yaml:1:16: target.path: the target \"pod\" is not TYPE/NAME (name it: -t pod/NAME; see 'mirrord ls -t pod')"
          ]
        }
        "#);
    }
}
