//! The engines and their kernel: who they are, and what they let a container do.

use bollard::models::{SystemInfo, SystemVersion};
use mirrord_protocol::control::ProxyEvent;
use tokio::time::{Duration, timeout};

use super::report::Item;
use crate::engine::attached::Attached;
use crate::engine::containers::{Common, Role};
use crate::engine::endpoint::{EndpointError, Sources};
use crate::engine::{Endpoint, Engine, clean, image, podman};
use crate::failure::Failure;
use crate::session::SessionId;
use crate::session::containers::{Running, Said};

/// The oldest kernel that steers by sk_lookup.
const KERNEL: (u32, u32) = (5, 9);
/// How long a container of ours may take to look around.
const PATIENCE: Duration = Duration::from_secs(20);
const ENGINE: &str = "engine";
const PODMAN: &str = "podman";
const KERNEL_TOPIC: &str = "kernel";

/// What was found of the engine.
pub struct OfEngine {
    /// It, if it answers.
    pub engine: Option<Engine>,
    /// What is told.
    pub items: Vec<Item>,
    /// Whether nothing is in the way of sessions.
    pub fit: bool,
    /// Whether nobody has asked for this one.
    pub is_default: bool,
}

/// Asks the engine, and has a container of ours look around in it.
pub async fn engine() -> OfEngine {
    let endpoint = Sources::of_environment().resolve();
    let is_default = endpoint.as_ref().is_ok_and(Endpoint::is_default);
    match answering(endpoint).await {
        Ok(answering) => look_around(ENGINE, answering).await,
        Err(failure) => {
            let kernel = nix::sys::utsname::uname();
            let release = kernel.map(|name| name.release().to_string_lossy().into_owned());
            let mut items = vec![Item::failure(ENGINE, &failure)];
            items.extend(release.ok().map(|release| kernel_item(KERNEL_TOPIC, &release)));
            OfEngine { engine: None, items, fit: false, is_default }
        }
    }
}

/// The same of podman, if this machine has it; and the service that answers for it.
pub async fn podman() -> Option<(OfEngine, Option<podman::Service>)> {
    let endpoint = podman::of_environment()?;
    let asked = async {
        let mut endpoint = Some(endpoint?);
        let service = podman::Service::start_for(&mut endpoint).await?;
        let endpoint = endpoint.ok_or_else(|| Failure::new("podman is nowhere"))?;
        Ok::<_, Failure>((answering(Ok(endpoint)).await?, service))
    };
    Some(match asked.await {
        Ok((answering, service)) => (look_around(PODMAN, answering).await, service),
        Err(failure) => {
            let items = vec![Item::failure(PODMAN, &failure)];
            (OfEngine { engine: None, items, fit: false, is_default: true }, None)
        }
    })
}

async fn look_around(topic: &str, (engine, version): (Engine, SystemVersion)) -> OfEngine {
    let mut items = identity(topic, &engine, &version);
    if let Ok(info) = engine.api().info().await {
        items.extend(peculiarities(topic, &info));
    }
    let under = if topic == ENGINE { KERNEL_TOPIC } else { topic };
    let kernel = version.kernel_version.as_deref().map(|release| kernel_item(under, release));
    items.extend(kernel);
    items.push(redirection(under, &engine).await);
    let fit = version.arch.as_deref().is_none_or(|arch| arch == "amd64");
    let is_default = engine.endpoint().is_default();
    OfEngine { engine: Some(engine), items, fit, is_default }
}

async fn answering(
    endpoint: Result<Endpoint, EndpointError>,
) -> Result<(Engine, SystemVersion), Failure> {
    let mut engine = Engine::new(&endpoint?)?;
    let ask = async |engine: &Engine| {
        let version = engine.api().version().await;
        version.map_err(|error| engine.explain("cannot ask the engine for its version", error))
    };
    let version = match ask(&engine).await {
        Ok(version) => version,
        Err(error) => match engine.with_version_of(&error) {
            Some(older) => {
                engine = older;
                ask(&engine).await?
            }
            None => return Err(error.into()),
        },
    };
    Ok((engine, version))
}

fn identity(topic: &str, engine: &Engine, version: &SystemVersion) -> Vec<Item> {
    let word = |value: &Option<String>| value.clone().unwrap_or_default();
    let endpoint = engine.endpoint();
    let text = format!(
        "{} {} (API {}) at {} ({})",
        if engine.is_podman() { "Podman" } else { "Docker Engine" },
        word(&version.version),
        word(&version.api_version),
        endpoint.host,
        endpoint.source
    );
    let mut items = vec![Item::fine(topic, text)];
    if let Some(arch) = version.arch.as_deref().filter(|arch| *arch != "amd64") {
        let text = format!("it runs on {arch}; mirrord's containers are for amd64");
        items.push(Item::missing(topic, text).hint("use an engine on an amd64 machine"));
    }
    items
}

/// What of an engine's settings changes how sessions run.
fn peculiarities(topic: &str, info: &SystemInfo) -> Vec<Item> {
    let options = info.security_options.iter().flatten();
    let items = options.filter_map(|option| {
        let name = option.split(',').find_map(|part| part.strip_prefix("name="))?;
        let note = |text: &str| Item::note(topic, text);
        Some(match name {
            "rootless" => {
                note("it is rootless and grants no capability: the preload library redirects")
                    .hint("nothing; for static programs use an engine that runs as root")
            }
            "userns" => note(
                "it remaps users, who may not load BPF programs: the preload library redirects",
            )
            .hint("nothing; with docker's --userns=host the kernel redirects"),
            "selinux" => note("SELinux is on: mirrord's own two containers run without its label")
                .hint("nothing; your container keeps its label"),
            "apparmor" => Item::fine(topic, "AppArmor is on, and in nobody's way"),
            _ => return None,
        })
    });
    items.collect()
}

fn kernel_item(topic: &str, release: &str) -> Item {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let version = next().zip(next());
    match version {
        Some(version) if version < KERNEL => {
            let text = format!("Linux {release}: it cannot redirect, which takes 5.9");
            Item::note(topic, text).hint(
                "nothing: the preload library redirects; a newer kernel serves static programs too",
            )
        }
        _ => Item::fine(topic, format!("Linux {release}")),
    }
}

/// What a session's sidecar needs, tried in a container like it.
async fn redirection(topic: &str, engine: &Engine) -> Item {
    let tried = timeout(PATIENCE, tried(engine)).await;
    let failure = match tried {
        Ok(Ok(())) => {
            let text =
                "capabilities, sysctls, BPF and sk_lookup: a container may redirect its network";
            return Item::fine(topic, text);
        }
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new("a container of mirrord's does not answer"),
    };
    let Item { text, .. } = Item::failure(topic, &failure);
    Item::note(topic, format!("a container may not redirect its network: {text}")).hint(
        "nothing: the preload library redirects, but not in static programs that are not Go's; an \
         engine that grants NET_ADMIN, NET_RAW and BPF has no such limit",
    )
}

async fn tried(engine: &Engine) -> Result<(), Failure> {
    let session = SessionId::random()
        .map_err(|error| Failure::caused_by("cannot make a container's name", &error))?;
    let image = image::tag()?;
    let common = Common {
        engine,
        session: &session,
        image: &image,
        unix_sockets: false,
        mirrors: false,
        standing: None,
    };
    let id = match common.create_check().await {
        Err(error) if error.is_not_found() => {
            image::make(engine, &image).await?;
            common.create_check().await?
        }
        other => other?,
    };
    let said = ask(&common, &id).await;
    clean::remove(engine, &id).await?;
    said
}

async fn ask(common: &Common<'_>, id: &str) -> Result<(), Failure> {
    let attached = Attached::to(common.engine, id).await?;
    common.start(Role::Proxy, id).await?;
    let mut running = Running::new(id.to_owned(), attached);
    loop {
        match running.next::<ProxyEvent>().await {
            Said::Event(ProxyEvent::Waiting) => return Ok(()),
            Said::Event(ProxyEvent::Failed { causes }) => {
                let failure = Failure::new(causes.first().cloned().unwrap_or_default());
                return Err(causes.into_iter().skip(1).fold(failure, Failure::because));
            }
            Said::Event(_) | Said::Log(_) => {}
            Said::Ended => {
                let failure = Failure::new("it ended without a word");
                return Err(running.last_words().iter().fold(failure, Failure::because));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn a_kernel_is_judged_by_its_version() {
        let state = |release: &str| kernel_item(KERNEL_TOPIC, release).state;
        assert_eq!(state("5.8.0-63-generic"), State::Note);
        assert_eq!(state("4.19.0"), State::Note);
        assert_eq!(state("5.9.1"), State::Ok);
        assert_eq!(state("6.18.44-fc"), State::Ok);
        assert_eq!(state("strange"), State::Ok);
    }

    #[test]
    fn an_engines_peculiarities_are_told_with_what_to_do() {
        let options =
            ["name=seccomp,profile=builtin", "name=rootless", "name=userns", "name=apparmor"];
        let options = options.map(str::to_owned).to_vec();
        let info = SystemInfo { security_options: Some(options), ..SystemInfo::default() };
        let items = peculiarities(ENGINE, &info);
        let told: Vec<_> = items.iter().map(|item| (item.state, item.hint.is_some())).collect();
        assert_eq!(told, [(State::Note, true), (State::Note, true), (State::Ok, false)]);
    }
}
