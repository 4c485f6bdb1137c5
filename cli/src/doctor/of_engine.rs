//! The engine and its kernel: who they are, and what they let a container do.

use bollard::models::{SystemInfo, SystemVersion};
use mirrord_protocol::control::ProxyEvent;
use tokio::time::{Duration, timeout};

use super::report::Item;
use crate::engine::attached::Attached;
use crate::engine::containers::{Common, Role};
use crate::engine::endpoint::Sources;
use crate::engine::{Engine, clean, image};
use crate::failure::Failure;
use crate::session::SessionId;
use crate::session::containers::{Running, Said};

/// The oldest kernel that steers by sk_lookup.
const KERNEL: (u32, u32) = (5, 9);
/// How long a container of ours may take to look around.
const PATIENCE: Duration = Duration::from_secs(20);
const ENGINE: &str = "engine";
const KERNEL_TOPIC: &str = "kernel";

/// What was found of the engine.
pub struct OfEngine {
    /// It, if it answers.
    pub engine: Option<Engine>,
    /// What is told.
    pub items: Vec<Item>,
    /// Whether nothing is in the way of sessions.
    pub fit: bool,
}

/// Asks the engine, and has a container of ours look around in it.
pub async fn engine() -> OfEngine {
    let (engine, version) = match answering().await {
        Ok(answering) => answering,
        Err(failure) => {
            let kernel = nix::sys::utsname::uname();
            let release = kernel.map(|name| name.release().to_string_lossy().into_owned());
            let mut items = vec![Item::failure(ENGINE, &failure)];
            items.extend(release.ok().map(|release| kernel_item(&release)));
            return OfEngine { engine: None, items, fit: false };
        }
    };
    let mut items = identity(&engine, &version);
    if let Ok(info) = engine.api().info().await {
        items.extend(peculiarities(&info));
    }
    let kernel = version.kernel_version.as_deref().map(kernel_item);
    items.extend(kernel);
    items.push(redirection(&engine).await);
    let fit = version.arch.as_deref().is_none_or(|arch| arch == "amd64");
    OfEngine { engine: Some(engine), items, fit }
}

async fn answering() -> Result<(Engine, SystemVersion), Failure> {
    let endpoint = Sources::of_environment().resolve()?;
    let mut engine = Engine::new(&endpoint)?;
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

fn identity(engine: &Engine, version: &SystemVersion) -> Vec<Item> {
    let word = |value: &Option<String>| value.clone().unwrap_or_default();
    let endpoint = engine.endpoint();
    let text = format!(
        "Docker Engine {} (API {}) at {} ({})",
        word(&version.version),
        word(&version.api_version),
        endpoint.host,
        endpoint.source
    );
    let mut items = vec![Item::fine(ENGINE, text)];
    if let Some(arch) = version.arch.as_deref().filter(|arch| *arch != "amd64") {
        let text = format!("it runs on {arch}; mirrord's containers are for amd64");
        items.push(Item::missing(ENGINE, text).hint("use an engine on an amd64 machine"));
    }
    items
}

/// What of an engine's settings changes how sessions run.
fn peculiarities(info: &SystemInfo) -> Vec<Item> {
    let options = info.security_options.iter().flatten();
    let items = options.filter_map(|option| {
        let name = option.split(',').find_map(|part| part.strip_prefix("name="))?;
        let note = |text: &str| Item::note(ENGINE, text);
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
            "apparmor" => Item::fine(ENGINE, "AppArmor is on, and in nobody's way"),
            _ => return None,
        })
    });
    items.collect()
}

fn kernel_item(release: &str) -> Item {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let version = next().zip(next());
    match version {
        Some(version) if version < KERNEL => {
            let text = format!("Linux {release}: it cannot redirect, which takes 5.9");
            Item::note(KERNEL_TOPIC, text).hint(
                "nothing: the preload library redirects; a newer kernel serves static programs too",
            )
        }
        _ => Item::fine(KERNEL_TOPIC, format!("Linux {release}")),
    }
}

/// What a session's sidecar needs, tried in a container like it.
async fn redirection(engine: &Engine) -> Item {
    let tried = timeout(PATIENCE, tried(engine)).await;
    let failure = match tried {
        Ok(Ok(())) => {
            let text =
                "capabilities, sysctls, BPF and sk_lookup: a container may redirect its network";
            return Item::fine(KERNEL_TOPIC, text);
        }
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new("a container of mirrord's does not answer"),
    };
    let Item { text, .. } = Item::failure(KERNEL_TOPIC, &failure);
    Item::note(KERNEL_TOPIC, format!("a container may not redirect its network: {text}")).hint(
        "nothing: the preload library redirects, but not in static programs that are not Go's; an \
         engine that grants NET_ADMIN, NET_RAW and BPF has no such limit",
    )
}

async fn tried(engine: &Engine) -> Result<(), Failure> {
    let session = SessionId::random()
        .map_err(|error| Failure::caused_by("cannot make a container's name", &error))?;
    let image = image::tag()?;
    let common =
        Common { engine, session: &session, image: &image, unix_sockets: false, standing: None };
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
        let state = |release: &str| kernel_item(release).state;
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
        let items = peculiarities(&info);
        let told: Vec<_> = items.iter().map(|item| (item.state, item.hint.is_some())).collect();
        assert_eq!(told, [(State::Note, true), (State::Note, true), (State::Ok, false)]);
    }
}
