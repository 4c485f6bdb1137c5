//! What `mirrord docker compose` tells the provider that compose will call: apart from the options,
//! since compose hands those on in an argument list.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;

/// The variable of the provider's own service, which no container gets.
pub const VARIABLE: &str = "MIRRORD_TOLD";

/// What is told.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// The options that stood before `docker`.
    pub words: Vec<String>,
    /// Whether the target among them is this service's.
    pub targeted: bool,
    /// The keys of a configuration file in `x-mirrord`.
    pub config: Option<Value>,
    /// Variables that the user gives the service: the target's do not stand above them.
    pub variables: Vec<String>,
    /// The service's image.
    pub image: Option<String>,
    /// The project's networks by the names that they have in the engine.
    pub networks: BTreeMap<String, String>,
}

impl Told {
    /// Of the definition of the provider's service, if anything was told.
    pub fn of(definition: &Value) -> Result<Option<Self>, Failure> {
        let told = definition["environment"][VARIABLE].as_str().map(serde_json::from_str);
        let wrong = |error| Failure::caused_by(format!("cannot read {VARIABLE}"), &error);
        told.transpose().map_err(wrong)
    }

    /// As the variable.
    pub fn variable(&self) -> Result<(String, String), Failure> {
        let text = serde_json::to_string(self)
            .map_err(|error| Failure::caused_by("cannot tell the provider", &error))?;
        Ok((VARIABLE.to_owned(), text))
    }
}
