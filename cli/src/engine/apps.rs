//! A session's app containers, which their user may stop, start and remove at any time.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerState, ContainerSummary};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    StopContainerOptions,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::clean::{self, ROLE_LABEL, SESSION_LABEL, is_ours, labelled, of_session, state};
use super::connect::{Engine, EngineError};
use super::podman::states;
use crate::session::SessionId;

/// How soon an app that was stopped is started again: `docker restart` does so at once.
const GRACE: Duration = Duration::from_secs(3);
/// How often that is looked for.
const PAUSE: Duration = Duration::from_millis(100);
/// How long `--stop-timeout` may be.
const STOPPING: Duration = Duration::from_secs(24 * 60 * 60);

/// An app's container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its image.
    pub image: String,
    /// Whether it runs, or is about to be started again by its restart policy.
    pub runs: bool,
    /// Whether it has never run yet.
    pub waits: bool,
    /// When it was made, in seconds since 1970.
    pub made: i64,
}

/// What an engine knows of a session.
#[derive(Debug, Default)]
pub struct Seen {
    /// The app's container.
    pub app: App,
    /// Whether the sidecar runs, as it does as long as somebody keeps the session.
    pub kept: bool,
}

/// Whose the app containers are.
#[derive(Debug, Clone)]
pub enum Apps {
    /// Those that carry the session's label.
    Labelled(SessionId),
    /// Those that stand in the network of the sidecar of this id and name, which somebody else
    /// starts and labels.
    Joined {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
}

/// The app containers of a session.
pub async fn all(engine: &Engine, whose: &Apps) -> Result<Vec<App>, EngineError> {
    let containers = match whose {
        Apps::Labelled(session) => of_session(engine, session).await?,
        Apps::Joined { id, name } => joined(engine, &[id, name]).await?,
    };
    Ok(containers.into_iter().filter(|container| !is_ours(container)).map(app).collect())
}

/// The containers in another one's network.
async fn joined(engine: &Engine, owner: &[&String]) -> Result<Vec<ContainerSummary>, EngineError> {
    let options = ListContainersOptionsBuilder::default().all(true).build();
    let containers = engine.api().list_containers(Some(options)).await;
    let containers =
        containers.map_err(|error| engine.explain("cannot list the app's containers", error))?;
    let is_in = |container: &ContainerSummary| {
        let mode = container.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
        let other = mode.and_then(|mode| mode.strip_prefix("container:"));
        other.is_some_and(|other| owner.iter().any(|owner| *owner == other))
    };
    Ok(containers.into_iter().filter(is_in).collect())
}

/// The apps of all sessions that the engine knows, by the session's id.
pub async fn of_all_sessions(engine: &Engine) -> Result<HashMap<String, Seen>, EngineError> {
    let containers = labelled(engine, SESSION_LABEL.to_owned()).await?;
    let mut seen: HashMap<String, Seen> = HashMap::new();
    let mut kept = Vec::new();
    for container in containers {
        let Some(session) =
            container.labels.as_ref().and_then(|labels| labels.get(SESSION_LABEL)).cloned()
        else {
            continue;
        };
        // Anybody may label a container so.
        if SessionId::known(&session).is_none() {
            continue;
        }
        match is_ours(&container) {
            true if runs(&container) => kept.push(session),
            true => {}
            false => drop(seen.insert(session, Seen { app: app(container), kept: false })),
        }
    }
    for session in kept {
        if let Some(seen) = seen.get_mut(&session) {
            seen.kept = true;
        }
    }
    Ok(seen)
}

fn app(container: ContainerSummary) -> App {
    let (runs, waits) = (runs(&container), state(&container) == "created");
    let made = container.created.unwrap_or_default();
    let names = container.names.unwrap_or_default();
    let name = names.iter().find(|name| name.rfind('/') == Some(0)).or(names.first());
    App {
        name: name.map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default(),
        id: container.id.unwrap_or_default(),
        image: container.image.unwrap_or_default(),
        runs,
        waits,
        made,
    }
}

fn runs(container: &ContainerSummary) -> bool {
    matches!(state(container).as_str(), "running" | "paused" | "restarting")
}

/// Stops the session's app, as `docker stop` does.
pub async fn stop(engine: &Engine, whose: &Apps) -> Result<(), EngineError> {
    let apps = all(engine, whose).await?;
    join_all(apps.iter().map(|app| stop_one(engine, &app.id))).await.into_iter().collect()
}

/// Stops a container with its own signal, and within its own time.
pub async fn stop_one(engine: &Engine, id: &str) -> Result<(), EngineError> {
    let api = engine.api().clone().with_timeout(STOPPING);
    match api.stop_container(id, None::<StopContainerOptions>).await {
        Ok(()) => Ok(()),
        Err(error) => match engine.explain("cannot stop the session's container", error) {
            EngineError::Refused { status: 304 | 404, .. } => Ok(()),
            error => Err(error),
        },
    }
}

/// Waits until no app of the session runs, nor is about to run again. While the engine does not
/// answer, nothing is known: what else happens to the session tells.
pub async fn end(engine: &Engine, whose: &Apps) {
    loop {
        match all(engine, whose).await {
            Ok(apps) => match apps.iter().find(|app| app.runs) {
                Some(app) => _ = clean::not_running(engine, &app.id).await,
                None if comes_back(engine, whose).await => {}
                None => return,
            },
            Err(_) => sleep(GRACE).await,
        }
        sleep(PAUSE).await;
    }
}

/// Whether an app that does not run is started again at once, as `docker restart` does.
pub async fn comes_back(engine: &Engine, whose: &Apps) -> bool {
    let deadline = Instant::now() + GRACE;
    let apps = loop {
        match all(engine, whose).await {
            Ok(apps) if apps.is_empty() => return false,
            Ok(apps) if apps.iter().any(|app| app.runs) => return true,
            Ok(apps) if Instant::now() >= deadline => break apps,
            Err(_) if Instant::now() >= deadline => return false,
            _ => sleep(PAUSE).await,
        }
    };
    // The engine answers once a start that is under way is done.
    let starts = apps.iter().map(async |app| {
        state_of(engine, &app.id).await.and_then(|state| state.running).unwrap_or(false)
    });
    join_all(starts).await.contains(&true)
}

/// Whether somebody had the engine end the app, which has ended: it may be a `docker restart`,
/// which may have started it again meanwhile.
pub async fn was_told_to_end(engine: &Engine, whose: &Apps) -> bool {
    let Ok(apps) = all(engine, whose).await else { return false };
    let told = apps.iter().map(async |app| told_to_end(engine, &app.id).await.unwrap_or(false));
    join_all(told).await.contains(&true)
}

/// Waits for the end of an app that the engine removes then. One that somebody has the engine end
/// may be about to be started again; it is not waited for.
pub async fn removed(engine: &Engine, session: &SessionId) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let filters = HashMap::from([
        ("type", words(&["container"])),
        ("event", words(&["kill", "die"])),
        ("label", vec![format!("{SESSION_LABEL}={session}")]),
    ]);
    let options = EventsOptionsBuilder::default().filters(&filters).build();
    let mut events = std::pin::pin!(engine.api().events(Some(options)));
    while let Some(Ok(event)) = events.next().await {
        let labels = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
        match event.action.as_deref() {
            _ if labels.contains_key(ROLE_LABEL) => {}
            Some("die") => return,
            _ => break,
        }
    }
    std::future::pending().await
}

async fn told_to_end(engine: &Engine, id: &str) -> Option<bool> {
    let state = state_of(engine, id).await?;
    if state.running == Some(true) {
        return Some(true);
    }
    let (since, until) = (moment(&state.started_at?)?, moment(&state.finished_at?)?);
    let filters =
        HashMap::from([("container", vec![id.to_owned()]), ("event", vec!["kill".to_owned()])]);
    let options =
        EventsOptionsBuilder::default().since(&since).until(&until).filters(&filters).build();
    let mut events = std::pin::pin!(engine.api().events(Some(options)));
    let event = timeout(GRACE, events.next()).await.ok()?;
    Some(event.is_some_and(|event| event.is_ok()))
}

async fn state_of(engine: &Engine, id: &str) -> Option<ContainerState> {
    let found = match engine.is_podman() {
        true => states::inspect(engine, id).await.ok()?,
        false => engine.api().inspect_container(id, None::<InspectContainerOptions>).await.ok()?,
    };
    found.state
}

/// The engine's words for a moment, as it takes them in a question; none for one that never was,
/// like the start of a container that could not be started, which it writes as of the year 1.
fn moment(text: &str) -> Option<String> {
    let moment: Timestamp =
        text.parse().ok().filter(|moment: &Timestamp| moment.as_second() > 0)?;
    let nanoseconds = u32::try_from(moment.subsec_nanosecond()).ok()?;
    Some(format!("{}.{nanoseconds:09}", moment.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_given_back_as_the_engine_takes_it() {
        let given = moment("2026-11-26T01:02:03.004005006Z");
        assert_eq!(given.as_deref(), Some("1795654923.004005006"));
        assert_eq!(moment("never"), None);
        assert_eq!(moment("0001-01-01T00:00:00Z"), None);
    }
}
