//! A service as a project of its own, in the network of a container that is there: what runs where a
//! provider stands on the app's own service.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::overlay::literal;
use crate::part::{KEYS, is_of_the_network};

/// Keys that the service has for others, or that its sidecar has in its place.
const LEFT_OUT: &[&str] =
    &["deploy", "depends_on", "links", "network_mode", "profiles", "provider", "scale"];
/// Keys whose values stand elsewhere in the project, which a provider is not told.
const ELSEWHERE: &[&str] = &["configs", "credential_spec", "models", "secrets", "volumes_from"];
/// On the container: the session that it was made for.
pub const SESSION_LABEL: &str = "mirrord.compose.session";

/// Why a service can't be run by its provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AloneError {
    /// What it needs is not told.
    #[error("{0} of a service that has a provider stand elsewhere, and compose does not tell them")]
    Elsewhere(&'static str),
    /// Several containers.
    #[error("only one container can take a target's place")]
    Several,
}

/// What is added to the service.
#[derive(Debug, Clone)]
pub struct Addition<'a> {
    /// The container whose network it joins.
    pub sidecar: &'a str,
    /// The session.
    pub session: &'a str,
    /// The target's variables; those of the service stand above them.
    pub variables: &'a [(String, String)],
    /// The project's volumes, by their names in the engine.
    pub volumes: &'a BTreeMap<String, String>,
}

/// Whether a provider's service says what container it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// It does.
    Yes,
    /// It has no image.
    No,
    /// It does if its image is there: it is the one that compose builds for a service that names none,
    /// and does not say whether there was something to build.
    IfBuilt,
}

/// Whether a provider's service says what container it is.
#[must_use]
pub fn whole(project: &str, service: &str, definition: &Value) -> Whole {
    match definition["image"].as_str() {
        None => Whole::No,
        Some(image) if image == format!("{project}-{service}") => Whole::IfBuilt,
        Some(_) => Whole::Yes,
    }
}

/// The project of that one service, as text for compose.
///
/// # Errors
/// It can't be run so.
pub fn alone(
    project: &str,
    service: &str,
    definition: &Value,
    addition: &Addition<'_>,
) -> Result<String, AloneError> {
    if let Some(key) = ELSEWHERE.iter().find(|key| has(&definition[**key])) {
        return Err(AloneError::Elsewhere(key));
    }
    let several = |count: &Value| count.as_u64().is_some_and(|count| count > 1);
    if several(&definition["scale"]) || several(&definition["deploy"]["replicas"]) {
        return Err(AloneError::Several);
    }
    let kept = definition.as_object().into_iter().flatten().filter(|(key, value)| {
        !LEFT_OUT.contains(&key.as_str()) && !KEYS.contains(&key.as_str()) && has(value)
    });
    let mut own: Map<String, Value> =
        kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    own.insert("network_mode".to_owned(), json!(format!("container:{}", addition.sidecar)));
    let mut variables: Map<String, Value> =
        addition.variables.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    variables
        .extend(own.get("environment").and_then(Value::as_object).cloned().unwrap_or_default());
    own.insert("environment".to_owned(), variables.into());
    let mut labels = own.get("labels").and_then(Value::as_object).cloned().unwrap_or_default();
    labels.insert(SESSION_LABEL.to_owned(), json!(addition.session));
    own.insert("labels".to_owned(), labels.into());
    if let Some(sysctls) = own.get_mut("sysctls").and_then(Value::as_object_mut) {
        sysctls.retain(|name, _| !is_of_the_network(name));
    }
    let volumes: Map<String, Value> = addition
        .volumes
        .iter()
        .map(|(key, name)| (key.clone(), json!({"external": true, "name": name})))
        .collect();
    let whole = json!({"name": project, "services": {service: own}, "volumes": volumes});
    Ok(literal(&whole))
}

fn has(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(keys) => !keys.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(definition: &Value) -> Result<Value, AloneError> {
        let variables = [("A".to_owned(), "far".to_owned()), ("B".to_owned(), "$x".to_owned())];
        let volumes = BTreeMap::from([("data".to_owned(), "shop_data".to_owned())]);
        let addition = Addition {
            sidecar: "shop-orders",
            session: "1a2b",
            variables: &variables,
            volumes: &volumes,
        };
        let text = alone("shop", "orders", definition, &addition)?;
        Ok(serde_json::from_str(&text.replace("$$", "$")).expect("JSON"))
    }

    #[test]
    fn what_is_the_sidecars_or_composes_is_left_out_and_the_rest_is_as_it_was() {
        let made = made(&json!({
            "image": "orders:dev", "command": ["serve"], "environment": {"A": "own"},
            "labels": {"x": "y"}, "ports": [{"target": 80}], "hostname": "box",
            "networks": {"default": null}, "depends_on": {"db": {}}, "provider": {"type": "mirrord"},
            "sysctls": {"net.core.somaxconn": "1", "kernel.shmmax": "2"},
        }));
        let expected = json!({
            "image": "orders:dev", "command": ["serve"],
            "environment": {"A": "own", "B": "$x"},
            "labels": {"x": "y", "mirrord.compose.session": "1a2b"},
            "network_mode": "container:shop-orders", "sysctls": {"kernel.shmmax": "2"},
        });
        let made = made.expect("a project");
        assert_eq!(made["services"]["orders"], expected);
        assert_eq!(made["volumes"]["data"]["name"], "shop_data");
    }

    #[test]
    fn what_compose_does_not_tell_is_refused_by_name() {
        let with = |key: &str, value: Value| made(&json!({"image": "x", key: value}));
        let secrets = with("secrets", json!([{"source": "a"}]));
        assert_eq!(secrets, Err(AloneError::Elsewhere("secrets")));
        assert!(with("secrets", json!([])).is_ok());
        assert_eq!(with("scale", json!(2)), Err(AloneError::Several));
        let whole = |definition| whole("shop", "orders", &definition);
        assert_eq!(whole(json!({"image": "x"})), Whole::Yes);
        assert_eq!(whole(json!({"image": "shop-orders"})), Whole::IfBuilt);
        assert_eq!(whole(json!({})), Whole::No);
    }
}
