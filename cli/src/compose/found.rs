//! What the engine knows of a project: its networks, and sessions that stand for a service.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::Network;
use bollard::query_parameters::ListNetworksOptionsBuilder;
use tokio::time::{Instant, sleep};

use crate::docker_run::Rehomed;
use crate::docker_run::network::Attachment;
use crate::engine::connect::EngineError;
use crate::engine::{Engine, clean};
use crate::failure::Failure;
use crate::session::SessionId;
use crate::session::desk::{self, Request};
use crate::session::standing::{Caller, Going, PROJECT_LABEL, Place, SERVICE_LABEL};

/// What compose writes on what it makes.
const PROJECT: &str = "com.docker.compose.project";
const NETWORK: &str = "com.docker.compose.network";
/// The network of services that name none.
const DEFAULT: &str = "default";

/// How long compose may take to make a network that nobody has told it we need.
const MAKING: Duration = Duration::from_secs(2);
/// How often that is looked for.
const PAUSE: Duration = Duration::from_millis(50);

/// A session that stands for a service.
pub struct Found(SessionId);

impl Found {
    /// Those of a service; there is one at most, unless something went wrong.
    pub async fn all(engine: &Engine, place: &Place) -> Result<Vec<Self>, EngineError> {
        let label = format!("{PROJECT_LABEL}={}", place.project);
        let containers = clean::labelled(engine, label).await?;
        let labels = containers.into_iter().filter_map(|container| container.labels);
        let ours = labels.filter(|labels| labels.get(SERVICE_LABEL) == Some(&place.service));
        let mut sessions: Vec<SessionId> =
            ours.filter_map(|labels| SessionId::known(labels.get(clean::SESSION_LABEL)?)).collect();
        sessions.dedup();
        Ok(sessions.into_iter().map(Self).collect())
    }

    /// Ends it; afterwards nothing of it is left.
    pub async fn end(&self, engine: &Engine) -> Result<(), Failure> {
        let Self(session) = self;
        let cannot =
            |error: &dyn std::error::Error| Failure::caused_by("cannot end the session", error);
        match desk::ask(&desk::socket(session), Request::Stop).await {
            Ok(Some(answer)) => serde_json::from_str(&answer).map_err(|error| cannot(&error))?,
            // Nobody keeps it any more, or somebody else does.
            Ok(None) | Err(_) => Ok(clean::clean(engine, session).await?),
        }
    }
}

/// The session that stands for the service, which goes on for the caller's app.
pub async fn going(
    engine: &Engine,
    place: &Place,
    caller: Caller,
) -> Result<Option<Going>, EngineError> {
    for Found(session) in Found::all(engine, place).await? {
        let answer = desk::ask(&desk::socket(&session), Request::Again(caller)).await;
        let going = answer.ok().flatten().and_then(|answer| serde_json::from_str(&answer).ok());
        if let Some(Some(going)) = going {
            return Ok(Some(going));
        }
    }
    Ok(None)
}

/// The sidecar's networks, which may only just be made: those of the provider's own service, for
/// which compose waits; without any the project's default one, else all that there are.
pub async fn join(
    engine: &Engine,
    project: &str,
    names: &[String],
    rehomed: &mut Rehomed,
) -> Result<(), Failure> {
    let deadline = Instant::now() + MAKING;
    let there = loop {
        let there = networks(engine, project).await?;
        let is_there = |key: &str| there.iter().any(|(found, _)| found == key);
        let enough = match rehomed.networks.as_slice() {
            [] => is_there(DEFAULT),
            _ => true,
        };
        if enough || Instant::now() >= deadline {
            break there;
        }
        sleep(PAUSE).await;
    };
    let find = |key: &str| there.iter().find(|(found, _)| found == key).map(|(_, name)| name);
    if rehomed.networks.is_empty() {
        let all = || there.iter().map(|(_, name)| name).collect::<Vec<_>>();
        let chosen = find(DEFAULT).map_or_else(all, |name| vec![name]);
        let attachment = |name: &String| Attachment { name: name.clone(), ..Default::default() };
        rehomed.networks = chosen.into_iter().map(attachment).collect();
    }
    for network in &mut rehomed.networks {
        if let Some(name) = find(&network.name) {
            network.name.clone_from(name);
        }
        if network.user_defined() {
            network.aliases.extend(names.iter().cloned());
        }
    }
    Ok(())
}

/// The project's networks: the names in the compose file, and in the engine.
async fn networks(engine: &Engine, project: &str) -> Result<Vec<(String, String)>, EngineError> {
    let filters = HashMap::from([("label", vec![format!("{PROJECT}={project}")])]);
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let found = engine.api().list_networks(Some(options)).await;
    let found =
        found.map_err(|error| engine.explain("cannot list the project's networks", error))?;
    let named = |network: Network| Some((network.labels?.get(NETWORK)?.clone(), network.name?));
    let mut named: Vec<_> = found.into_iter().filter_map(named).collect();
    named.sort();
    Ok(named)
}
