//! The pipe between a proxy on this machine and the agent in an engine, which share no volume.
//! When it breaks, another one is made.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::engine::{Engine, exec};
use crate::session::carry::carry;
use crate::session::door::Door;

/// Between attempts to make a pipe: an agent that has only just started may not listen yet.
const RETRY: Duration = Duration::from_millis(100);

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
    let Ok(there) = exec::agent_pipe(engine, agent).await else { return };
    let Ok(here) = door.open(0, None).await else { return };
    let _ = carry(there.joined(), here).await;
}
