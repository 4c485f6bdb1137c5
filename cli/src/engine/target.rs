//! The container whose place is taken.

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};

use super::clean::SESSION_LABEL;
use super::connect::{Engine, EngineError};
use crate::failure::{Failure, nearest};
use crate::lock::Pinned;

/// A running container that can be a target.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its id.
    pub id: String,
    /// Its name, as docker shows it.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// Its domain name, if it has one.
    pub domainname: Option<String>,
    /// Its address on its first network, if it has one of its own.
    pub address: Option<String>,
    /// Its process, as a joined pid namespace numbers it.
    pub pid: u32,
    /// Which pid namespace its agent joins.
    pub pid_mode: String,
    /// What it holds that a run can depend on.
    pub pinned: Pinned,
    /// Whether the engine is known to give containers the machine's own users.
    pub users_are_own: bool,
}

/// Why a container cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No container has this name or id.
    #[error("there is no container {name:?}")]
    NotFound {
        /// What was looked for.
        name: String,
        /// The containers that run.
        running: Vec<String>,
    },
    /// The beginning of several ids.
    #[error("{name:?} could be several containers")]
    Several {
        /// What was looked for.
        name: String,
        /// Which ones.
        matches: Vec<String>,
    },
    /// It does not run.
    #[error("the container {name} is not running: it is {state}")]
    NotRunning {
        /// Its name.
        name: String,
        /// Its state, with the exit code if it has one.
        state: String,
    },
    /// It runs in a network namespace that a session must not touch.
    #[error("the container {name} uses this machine's own network, which no session may redirect")]
    HostNetwork {
        /// Its name.
        name: String,
    },
    /// It has nobody to talk to.
    #[error("the container {name} has no network")]
    NoNetwork {
        /// Its name.
        name: String,
    },
    /// It belongs to a session.
    #[error("the container {name} belongs to a session of mirrord")]
    Ours {
        /// Its name.
        name: String,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            TargetError::NotFound { name, running } => {
                failure.hint(not_found_hint(&name, &running))
            }
            TargetError::Several { matches, .. } => {
                failure.hint(format!("say which: {}", matches.join(", ")))
            }
            TargetError::NotRunning { name, state } if state.starts_with("paused") => {
                failure.hint(format!("continue it: docker unpause {name}"))
            }
            TargetError::NotRunning { name, .. } => {
                failure.hint(format!("start it: docker start {name}"))
            }
            TargetError::HostNetwork { .. } => failure.hint("give the target a network of its own"),
            TargetError::NoNetwork { name } => {
                failure.hint(format!(
                    "give it one: docker network disconnect none {name}; docker network connect NETWORK {name}"
                ))
            }
            TargetError::Ours { .. } => failure.hint("name the container that the session is for"),
            TargetError::Engine(error) => error.into(),
        }
    }
}

fn not_found_hint(name: &str, running: &[String]) -> String {
    let near = nearest(name, running.iter().map(String::as_str));
    match (near.as_slice(), running) {
        ([], []) => "no container is running; see 'docker ps -a'".to_owned(),
        ([], all) if all.len() > 8 => {
            format!("{} containers are running; see 'docker ps'", all.len())
        }
        ([], all) => format!("running are: {}", all.join(", ")),
        (near, _) => format!("did you mean {}?", near.join(" or ")),
    }
}

/// Finds the target and checks it.
pub async fn find(engine: &Engine, name: &str) -> Result<Target, TargetError> {
    let doing = format!("cannot look at the container {name:?}");
    match inspect(engine, name).await {
        Ok(found) => {
            let network = network_of(engine, &found).await;
            check(found, &network)
        }
        Err(error) => {
            let error = engine.explain(&doing, error);
            if error.message().to_lowercase().contains("multiple ids found") {
                let matches = running(engine, true).await?;
                let matches = matches.into_iter().filter(|(id, _)| id.starts_with(name));
                let matches =
                    matches.map(|(id, name)| format!("{name} ({})", short(&id))).collect();
                return Err(TargetError::Several { name: name.to_owned(), matches });
            }
            if !error.is_not_found() {
                return Err(error.into());
            }
            let running = running(engine, false).await?.into_iter().map(|(_, name)| name).collect();
            Err(TargetError::NotFound { name: name.to_owned(), running })
        }
    }
}

async fn inspect(
    engine: &Engine,
    name: &str,
) -> Result<ContainerInspectResponse, bollard::errors::Error> {
    engine.api().inspect_container(name, None::<InspectContainerOptions>).await
}

/// The line of /etc/hosts that docker writes for a container linked on its own network.
pub async fn link(engine: &Engine, name: &str, alias: &str) -> Option<String> {
    let found = inspect(engine, name).await.ok()?;
    let mut networks = found.network_settings?.networks?;
    let address = networks.remove("bridge")?.ip_address.filter(|address| !address.is_empty())?;
    let hostname = found.config?.hostname.unwrap_or_default();
    let name = found.name?;
    let name = Some(name.trim_start_matches('/')).filter(|name| *name != alias);
    Some(
        format!("{address}\t{alias} {hostname} {}", name.unwrap_or_default()).trim_end().to_owned(),
    )
}

/// The network mode of the container that owns the network of this one.
async fn network_of(engine: &Engine, container: &ContainerInspectResponse) -> String {
    let mut mode = network_mode(container);
    // The engine lets nobody join a ring; the bound is for what changes while we look.
    for _ in 0..8 {
        let Some(owner) = mode.strip_prefix("container:") else { break };
        match inspect(engine, owner).await {
            Ok(owner) => mode = network_mode(&owner),
            Err(_) => break,
        }
    }
    mode
}

fn network_mode(container: &ContainerInspectResponse) -> String {
    let host = container.host_config.as_ref();
    host.and_then(|host| host.network_mode.clone()).unwrap_or_default()
}

/// Whether the target still runs as it did when it was found.
pub async fn still_runs(engine: &Engine, target: &Target) -> bool {
    let state = match inspect(engine, &target.id).await {
        Ok(found) => found.state,
        Err(_) => return false,
    };
    state.and_then(|state| state.running).unwrap_or(false)
}

/// Whether a target that has stopped is still there; one that is being removed is not.
pub async fn can_be_started(engine: &Engine, target: &Target) -> bool {
    let found = match inspect(engine, &target.id).await {
        Ok(found) => found,
        Err(error) => return !engine.explain("looking at the target", error).is_not_found(),
    };
    let removes = found.host_config.and_then(|host| host.auto_remove).unwrap_or(false);
    let status = found.state.and_then(|state| state.status);
    let leaves =
        matches!(status, Some(ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD));
    !removes && !leaves
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Ids and names, without our own.
async fn running(engine: &Engine, all: bool) -> Result<Vec<(String, String)>, EngineError> {
    let options = ListContainersOptionsBuilder::default().all(all).build();
    let containers = engine.api().list_containers(Some(options)).await;
    let containers = containers.map_err(|error| engine.explain("cannot list containers", error))?;
    let theirs = containers.into_iter().filter(|container| {
        container.labels.as_ref().is_none_or(|labels| !labels.contains_key(SESSION_LABEL))
    });
    let mut list: Vec<(String, String)> = theirs
        .filter_map(|container| {
            let name = container.names?.into_iter().find(|name| name.rfind('/') == Some(0))?;
            Some((container.id?, name.trim_start_matches('/').to_owned()))
        })
        .collect();
    list.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(list)
}

fn check(found: ContainerInspectResponse, network: &str) -> Result<Target, TargetError> {
    let id = found.id.unwrap_or_default();
    let name = found.name.unwrap_or_default().trim_start_matches('/').to_owned();
    let config = found.config.unwrap_or_default();
    let host = found.host_config.unwrap_or_default();
    let state = found.state.unwrap_or_default();
    if !state.running.unwrap_or(false) || state.paused.unwrap_or(false) {
        let status = state.status.unwrap_or(ContainerStateStatusEnum::EMPTY).to_string();
        let state = match (status.as_str(), state.exit_code) {
            ("exited" | "dead", Some(code)) => format!("{status}, exit code {code}"),
            _ => status,
        };
        return Err(TargetError::NotRunning { name, state });
    }
    if config.labels.as_ref().is_some_and(|labels| labels.contains_key(SESSION_LABEL)) {
        return Err(TargetError::Ours { name });
    }
    match network {
        "host" => return Err(TargetError::HostNetwork { name }),
        "none" => return Err(TargetError::NoNetwork { name }),
        _ => {}
    }
    let host_pid = host.pid_mode.as_deref() == Some("host");
    let ports = config.exposed_ports.into_iter().flatten().collect();
    let networks = found.network_settings.and_then(|settings| settings.networks);
    let mut addresses: Vec<String> = networks
        .into_iter()
        .flatten()
        .filter_map(|(_, network)| network.ip_address)
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort();
    Ok(Target {
        address: addresses.into_iter().next(),
        pid: match host_pid {
            true => state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(1),
            false => 1,
        },
        pid_mode: if host_pid { "host".to_owned() } else { format!("container:{id}") },
        users_are_own: found.resolv_conf_path.is_some_and(|path| users_are_own(&path)),
        pinned: Pinned { container: None, image: found.image, ports },
        hostname: config.hostname.unwrap_or_default(),
        domainname: config.domainname.filter(|name| !name.is_empty()),
        id,
        name,
    })
}

/// Whether a container's file is where an engine has it that remaps no users; one that does has a
/// folder for each of its mappings: `…/docker/100000.100000/containers/ID/resolv.conf`.
fn users_are_own(path: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mapping = |folder: &str| {
        folder.split_once('.').is_some_and(|(user, group)| number(user) && number(group))
    };
    let mut folders = path.rsplit('/');
    let kept = folders.next() == Some("resolv.conf") && folders.next().is_some();
    kept && folders.next() == Some("containers") && folders.next().is_some_and(|it| !mapping(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_remaps_users_is_known_by_its_folder() {
        assert!(users_are_own("/var/lib/docker/containers/f00d/resolv.conf"));
        assert!(users_are_own("/var/lib/docker/1.x/containers/f00d/resolv.conf"));
        assert!(!users_are_own("/var/lib/docker/100000.100000/containers/f00d/resolv.conf"));
        assert!(!users_are_own("/run/user/1000/overlay-containers/f00d/userdata/resolv.conf"));
        assert!(!users_are_own(""));
    }

    #[test]
    fn an_absent_target_names_what_is_there() {
        let failure = |name: &str, running: &[&str]| {
            let running = running.iter().map(|name| (*name).to_owned()).collect();
            Failure::from(TargetError::NotFound { name: name.to_owned(), running })
        };
        let close = failure("ordres", &["orders", "web"]);
        assert_eq!(close.sentence, "there is no container \"ordres\"");
        assert_eq!(close.hint.as_deref(), Some("did you mean orders?"));
        assert_eq!(failure("x", &["a", "b"]).hint.as_deref(), Some("running are: a, b"));
        assert_eq!(
            failure("x", &[]).hint.as_deref(),
            Some("no container is running; see 'docker ps -a'")
        );
    }
}
