//! What a session leaves in the engine: nothing.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error as BollardError;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use futures_util::future::join_all;

use super::apps::stop_one;
use super::connect::{Engine, EngineError};
use super::containers::{self, Role};
use super::podman::states;
use crate::session::SessionId;

/// On everything that belongs to a session; its value is the session's id.
pub const SESSION_LABEL: &str = "mirrord.session";
/// On the sidecar and the agent; its value says which of the two it is.
pub const ROLE_LABEL: &str = "mirrord.role";
/// A container that is younger may still be on its way to run.
const NEW: Duration = Duration::from_secs(120);
/// A container that was being created while its creator died shows up by then.
const LATE_ARRIVALS: Duration = Duration::from_millis(500);
/// What podman says of a container whose network another one has joined.
const DEPENDENT: &str = "dependent containers";
/// How often it is tried to be removed.
const TRIES: u32 = 20;

/// Stops the session's app and removes its sidecar and agent; doing so twice is no error.
pub async fn clean(engine: &Engine, session: &SessionId) -> Result<(), EngineError> {
    let (ours, apps): (Vec<_>, Vec<_>) =
        of_session(engine, session).await?.into_iter().partition(is_ours);
    let (never_ran, ran): (Vec<_>, Vec<_>) =
        apps.into_iter().partition(|app| state(app) == "created");
    let (stops, removals) = tokio::join!(
        join_all(ids(&ran).map(|id| stop_one(engine, id))),
        join_all(ids(&ours).chain(ids(&never_ran)).map(|id| remove(engine, id))),
    );
    stops.into_iter().chain(removals).collect::<Result<(), _>>()?;
    if engine.is_podman() {
        for role in [Role::Agent, Role::Proxy] {
            remove(engine, &containers::name(role, session)).await?;
        }
    }
    remove_volumes(engine, session).await
}

/// Removes the session's volumes; one that a stopped app would need again is left to it.
pub async fn remove_volumes(engine: &Engine, session: &SessionId) -> Result<(), EngineError> {
    let label = format!("{SESSION_LABEL}={session}");
    let names = volumes(engine, label).await?;
    join_all(names.iter().map(|name| remove_volume(engine, name))).await.into_iter().collect()
}

/// The volumes of any session that no container has.
pub async fn idle_volumes(engine: &Engine) -> Result<Vec<String>, EngineError> {
    volumes(engine, SESSION_LABEL.to_owned()).await
}

/// Those with a label that no container has.
async fn volumes(engine: &Engine, label: String) -> Result<Vec<String>, EngineError> {
    let filters = HashMap::from([("label", vec![label]), ("dangling", vec!["true".to_owned()])]);
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let list = engine.api().list_volumes(Some(options)).await;
    let list = list.map_err(|error| engine.explain("cannot list mirrord's volumes", error))?;
    Ok(list.volumes.into_iter().flatten().map(|volume| volume.name).collect())
}

/// Removes a volume, unless a container has it.
pub async fn remove_volume(engine: &Engine, name: &str) -> Result<(), EngineError> {
    match engine.api().remove_volume(name, None::<RemoveVolumeOptions>).await {
        Ok(()) => Ok(()),
        Err(error) => match engine.explain("cannot remove a volume of the session", error) {
            // It is gone, or in use.
            EngineError::Refused { status: 404 | 409, .. } => Ok(()),
            error => Err(error),
        },
    }
}

/// As [`clean`], with an engine whose version may not be known yet.
pub async fn clean_any_version(engine: &Engine, session: &SessionId) -> Result<(), EngineError> {
    match clean(engine, session).await {
        Err(error) => match engine.with_version_of(&error) {
            Some(engine) => clean(&engine, session).await,
            None => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

/// As [`clean_any_version`], and what was still being created goes as well.
pub async fn clean_late_arrivals(engine: &Engine, session: &SessionId) -> Result<(), EngineError> {
    clean_any_version(engine, session).await?;
    tokio::time::sleep(LATE_ARRIVALS).await;
    clean_any_version(engine, session).await
}

/// Removes sidecars and agents of other sessions that nobody keeps: not running, and not new; and
/// volumes of sessions that no container has any more.
pub async fn sweep(engine: &Engine, own: &SessionId) -> Result<(), EngineError> {
    let own = own.to_string();
    let others = idle(engine).await?.into_iter().filter(|container| {
        let session = container.labels.as_ref().and_then(|labels| labels.get(SESSION_LABEL));
        session.is_some_and(|session| *session != own)
    });
    let others: Vec<_> = others.collect();
    let removed = join_all(ids(&others).map(|id| remove(engine, id))).await;
    removed.into_iter().collect::<Result<(), _>>()?;
    let volumes = idle_volumes(engine).await?;
    join_all(volumes.iter().map(|name| remove_volume(engine, name))).await.into_iter().collect()
}

/// Sidecars and agents that nobody keeps: not running, and not new.
pub async fn idle(engine: &Engine) -> Result<Vec<ContainerSummary>, EngineError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let old = |container: &ContainerSummary| {
        let age = container.created.and_then(|at| now.checked_sub(u64::try_from(at).ok()?));
        age.is_some_and(|age| age > NEW.as_secs())
    };
    let ours = labelled(engine, ROLE_LABEL.to_owned()).await?.into_iter();
    let is_idle = |container: &ContainerSummary| {
        matches!(state(container).as_str(), "created" | "exited" | "dead") && old(container)
    };
    Ok(ours.filter(is_idle).collect())
}

/// Waits until a container has been removed; one that is not there has been. Whether the engine
/// said so: one that does not answer has removed nothing.
pub async fn removed(engine: &Engine, id: &str) -> bool {
    match engine.is_podman() {
        true => states::until(engine, id, true).await,
        false => wait(engine, id, "removed").await,
    }
}

/// Waits until a container does not run; one that is not there does not. Whether the engine said
/// so.
pub async fn not_running(engine: &Engine, id: &str) -> bool {
    match engine.is_podman() {
        true => states::until(engine, id, false).await,
        false => wait(engine, id, "not-running").await,
    }
}

async fn wait(engine: &Engine, id: &str, condition: &str) -> bool {
    let options = WaitContainerOptionsBuilder::default().condition(condition).build();
    let mut waiting = std::pin::pin!(engine.api().wait_container(id, Some(options)));
    match waiting.next().await {
        Some(Ok(said)) => said.error.is_none(),
        // An exit code that is not 0, or why the engine could not wait to the end.
        Some(Err(BollardError::DockerContainerWaitError { error, .. })) => error.is_empty(),
        Some(Err(error)) => engine.explain("cannot wait for a container", error).is_not_found(),
        None => false,
    }
}

/// Removes a container with its anonymous volumes, running or not. With podman, one whose network
/// another one has joined goes after it, and stays, ended, as long as its user keeps the other.
pub async fn remove(engine: &Engine, id: &str) -> Result<(), EngineError> {
    let mut tries = 0;
    loop {
        match remove_once(engine, id).await {
            Err(error) if error.message().contains(DEPENDENT) && tries < TRIES => {
                if states::is_kept(engine, error.message()).await {
                    return Ok(());
                }
                tries += 1;
                tokio::time::sleep(LATE_ARRIVALS).await;
            }
            other => return other,
        }
    }
}

async fn remove_once(engine: &Engine, id: &str) -> Result<(), EngineError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match engine.api().remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) => match engine.explain("cannot remove a container of the session", error) {
            EngineError::Refused { status: 404, .. } => Ok(()),
            // It is being removed already.
            EngineError::Refused { status: 409, .. } => {
                removed(engine, id).await;
                Ok(())
            }
            error => Err(error),
        },
    }
}

pub(super) async fn of_session(
    engine: &Engine,
    session: &SessionId,
) -> Result<Vec<ContainerSummary>, EngineError> {
    labelled(engine, format!("{SESSION_LABEL}={session}")).await
}

/// The containers with a label, running or not.
pub async fn labelled(
    engine: &Engine,
    label: String,
) -> Result<Vec<ContainerSummary>, EngineError> {
    if engine.is_podman() {
        return states::labelled(engine, &label).await;
    }
    let filters = HashMap::from([("label", vec![label])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = engine.api().list_containers(Some(options)).await;
    containers.map_err(|error| engine.explain("cannot list mirrord's containers", error))
}

pub(super) fn state(container: &ContainerSummary) -> String {
    container.state.as_ref().map(ToString::to_string).unwrap_or_default()
}

pub(super) fn is_ours(container: &ContainerSummary) -> bool {
    container.labels.as_ref().is_some_and(|labels| labels.contains_key(ROLE_LABEL))
}

fn ids(containers: &[ContainerSummary]) -> impl Iterator<Item = &str> {
    containers.iter().filter_map(|container| container.id.as_deref())
}
