//! The pipe between a proxy on this machine and the agent in an engine: the agent's own socket, if
//! its volume is a folder that we may enter, else processes that carry bytes. When it breaks, another
//! one is made.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;
use mirrord_protocol::control::{AGENT_SOCKET, SHARED_FOLDER};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::engine::{Engine, exec};
use crate::session::carry::carry;
use crate::session::door::Door;
use crate::session::here;

/// Between attempts to make a pipe: an agent that has only just started may not listen yet.
const RETRY: Duration = Duration::from_millis(100);
/// How often, and how often at most, a socket is tried that should be there.
const KNOCK: (Duration, u32) = (Duration::from_millis(5), 100);

/// Leads pipes to the agent as long as this lives.
pub struct Lead {
    agent: watch::Sender<String>,
    _task: JoinSet<()>,
}

impl Lead {
    /// Begins, with an agent of this id.
    pub fn start(engine: &Engine, door: &Door, agent: &str) -> Self {
        let (agent_tx, agent) = watch::channel(agent.to_owned());
        let mut task = JoinSet::new();
        task.spawn(lead(engine.clone(), door.clone(), agent));
        Self { agent: agent_tx, _task: task }
    }

    /// From now on to the agent of this id.
    pub fn to(&self, agent: &str) {
        self.agent.send_replace(agent.to_owned());
    }
}

async fn lead(engine: Engine, door: Door, mut agent: watch::Receiver<String>) {
    loop {
        let id = agent.borrow_and_update().clone();
        tokio::select! {
            () = carry_once(&engine, &door, &id) => {}
            changed = agent.changed() => if changed.is_err() {
                return;
            },
        }
        sleep(RETRY).await;
    }
}

/// Why a pipe ended shows at its ends: the proxy tells of its tunnel, the engine of the agent.
async fn carry_once(engine: &Engine, door: &Door, agent: &str) {
    if let Door::Here { folder } = door
        && engine.endpoint().host.starts_with("unix:")
        && let Some(socket) = near(engine, agent).await
    {
        let _ = here::lend(folder, socket).await;
        return;
    }
    let Ok(there) = exec::agent_pipe(engine, agent).await else { return };
    let Ok(here) = door.open(0, None).await else { return };
    let _ = carry(there.joined(), here).await;
}

/// The agent's socket, where its volume is a folder of this machine that we may enter.
async fn near(engine: &Engine, agent: &str) -> Option<UnixStream> {
    let told = engine.api().inspect_container(agent, None::<InspectContainerOptions>).await.ok()?;
    let is_shared = |place: Option<&str>| place == Some(SHARED_FOLDER);
    let mut volumes = told.mounts?.into_iter();
    let volume = volumes.find(|volume| is_shared(volume.destination.as_deref()))?;
    // Volumes' paths are too long for a socket's address.
    let folder = File::open(volume.source?).ok()?;
    let socket = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let socket = Path::new(&socket).join(Path::new(AGENT_SOCKET).file_name()?);
    for _ in 0..KNOCK.1 {
        match UnixStream::connect(&socket).await {
            Ok(socket) => return Some(socket),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
            Err(_) => sleep(KNOCK.0).await,
        }
    }
    None
}
