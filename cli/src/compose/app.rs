//! The app of a provider that stands on the app's own service: compose itself runs it, as a project of
//! that one service, so that its container has compose's own labels.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::process::{Command, Stdio};

use bollard::query_parameters::ListVolumesOptionsBuilder;
use mirrord_compose::{Addition, SESSION_LABEL, Whole, alone, whole};
use serde_json::Value;

use super::once::last_words;
use crate::engine::connect::EngineError;
use crate::engine::{Engine, clean};
use crate::failure::Failure;
use crate::session::SessionId;
use crate::session::standing::Place;
use crate::stand::engine;

/// What compose writes on what it makes.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const VOLUME: &str = "com.docker.compose.volume";

/// Whether the provider's service is the app's own.
///
/// # Errors
/// The engine does not answer.
pub async fn is_its_own(place: &Place, definition: &Value) -> Result<bool, Failure> {
    match whole(&place.project, &place.service, definition) {
        Whole::Yes => Ok(true),
        Whole::No => Ok(false),
        Whole::IfBuilt => {
            let image = definition["image"].as_str().unwrap_or_default();
            Ok(engine().await?.api().inspect_image(image).await.is_ok())
        }
    }
}

/// Creates the service's container in the sidecar's network. The compose that has called us starts it,
/// once what it depends on is as it should be; and it has removed one of before, since a provider's
/// service has none for it.
pub async fn create(
    engine: &Engine,
    place: &Place,
    definition: &Value,
    session: &SessionId,
    variables: &[(String, String)],
) -> Result<(), Failure> {
    let addition = Addition {
        sidecar: &place.sidecar(),
        session: &session.to_string(),
        variables,
        volumes: &volumes(engine, place, definition).await?,
    };
    let (project, service) = (&place.project, &place.service);
    let model = alone(project, service, definition, &addition).map_err(|error| {
        Failure::new(error.to_string())
            .hint("put the provider on a service of its own, beside the app's")
    })?;
    let failed = |error: std::io::Error| Failure::caused_by("cannot start docker compose", &error);
    let mut compose = Command::new("docker")
        .args(["compose", "-p", project, "-f", "-", "--ansi", "never", "up", "--no-start"])
        .arg(service)
        // Those are the other services.
        .env("COMPOSE_IGNORE_ORPHANS", "1")
        .env_remove("COMPOSE_FILE")
        .env_remove("COMPOSE_PROFILES")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = compose.stdin.take() {
        input.write_all(model.as_bytes()).map_err(failed)?;
    }
    let output = compose.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(last_words(&String::from_utf8_lossy(&output.stderr))),
    }
}

/// The volumes that the service has of the project, by their names in the engine.
async fn volumes(
    engine: &Engine,
    place: &Place,
    definition: &Value,
) -> Result<BTreeMap<String, String>, EngineError> {
    let mounts = definition["volumes"].as_array().cloned().unwrap_or_default();
    let wanted: Vec<&str> = mounts.iter().filter_map(|mount| mount["source"].as_str()).collect();
    let filters = HashMap::from([("label", vec![format!("{PROJECT}={}", place.project)])]);
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let found = engine.api().list_volumes(Some(options)).await;
    let found =
        found.map_err(|error| engine.explain("cannot list the project's volumes", error))?;
    let named = found.volumes.into_iter().flatten();
    let named = named.filter_map(|volume| Some((volume.labels.get(VOLUME)?.clone(), volume.name)));
    Ok(named.filter(|(key, _)| wanted.contains(&key.as_str())).collect())
}

/// Removes the container that was run so, if there is one.
pub async fn remove(engine: &Engine, place: &Place) -> Result<(), EngineError> {
    for container in clean::labelled(engine, SESSION_LABEL.to_owned()).await? {
        let labels = container.labels.unwrap_or_default();
        let is = |key: &str, value: &String| labels.get(key) == Some(value);
        if let Some(id) = container.id
            && is(PROJECT, &place.project)
            && is(SERVICE, &place.service)
        {
            clean::remove(engine, &id).await?;
        }
    }
    Ok(())
}
