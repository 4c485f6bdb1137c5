//! The targets that the agent has tunnels for: a thread each, in the target's namespaces.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use mirrord_netns::enter::{ContainerId, EnterError, NotAnId, Process};
use mirrord_protocol::control::{AgentConfig, Door};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, info_span};

use crate::beside::{Beside, Patience};
use crate::door::Caller;
use crate::target::{Nodes, Target};

/// A target replaces its tunnel with each new one: more than a few never wait.
const CALLERS: usize = 4;
/// A session has no more targets on one node.
const MAX_TARGETS: usize = 256;

/// Why there is no way to a target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// The agent was born beside its target, and serves no other.
    #[error("this agent serves no other container than its own")]
    OnlyOwn,
    /// The request names none.
    #[error(transparent)]
    Name(#[from] NotAnId),
    /// It is not there, or closed to us.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The machine has no thread to give.
    #[error("cannot start a thread for the target")]
    Thread(#[source] io::Error),
    /// Its thread has ended before it began.
    #[error("the target's thread failed")]
    Failed,
    /// There are as many as there may be.
    #[error("the agent has {MAX_TARGETS} targets already")]
    TooMany,
}

/// The way of new tunnels to a target's thread.
pub(crate) type CallersTx = mpsc::Sender<Caller>;

/// The threads, by their target's container; none is the agent's own namespaces.
pub(crate) struct Targets {
    threads: HashMap<Option<ContainerId>, CallersTx>,
    door: Door,
    nodes: Nodes,
    patience_rx: watch::Receiver<Patience>,
    ended_tx: mpsc::Sender<Instant>,
}

/// Tells, when a thread ends in whatever way, since when it had no tunnel.
struct Ended {
    idle_since: Instant,
    ended_tx: mpsc::Sender<Instant>,
}

impl Targets {
    /// No thread yet. Each, at its end, says through `ended_tx` since when it had no tunnel.
    pub(crate) fn new(
        config: &AgentConfig,
        patience_rx: watch::Receiver<Patience>,
        ended_tx: mpsc::Sender<Instant>,
    ) -> Self {
        let nodes = config.exclude_probes.as_deref().map(Into::into);
        Self { threads: HashMap::new(), door: config.door, nodes, patience_rx, ended_tx }
    }

    /// Whether no thread lives.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.threads.retain(|_, callers_tx| !callers_tx.is_closed());
        self.threads.is_empty()
    }

    /// The way to the target that a request names; its thread is started if there is none.
    pub(crate) fn find(&mut self, container: Option<&str>) -> Result<CallersTx, TargetError> {
        let found = match (container, self.door) {
            (Some(_), Door::Socket { .. }) => return Err(TargetError::OnlyOwn),
            (Some(name), Door::Listener) => {
                let id: ContainerId = name.parse()?;
                let process = Process::find(&id)?;
                Some((id, process))
            }
            (None, _) => None,
        };
        let key = found.as_ref().map(|(id, _)| id.clone());
        if let Some(callers_tx) = self.threads.get(&key).filter(|tx| !tx.is_closed()) {
            return Ok(callers_tx.clone());
        }
        if !self.is_empty() && self.threads.len() >= MAX_TARGETS {
            return Err(TargetError::TooMany);
        }
        let callers_tx = self.start(found)?;
        self.threads.insert(key, callers_tx.clone());
        Ok(callers_tx)
    }

    /// Starts a thread, and waits until it is in the target's namespaces.
    fn start(&self, found: Option<(ContainerId, Process)>) -> Result<CallersTx, TargetError> {
        let (callers_tx, callers_rx) = mpsc::channel(CALLERS);
        let (entered_tx, entered_rx) = sync_channel(1);
        let own_pid = match self.door {
            Door::Socket { target_pid } => target_pid,
            Door::Listener => std::process::id(),
        };
        let (nodes, patience_rx) = (self.nodes.clone(), self.patience_rx.clone());
        let ended_tx = self.ended_tx.clone();
        let work = move || {
            let name = found.as_ref().map(|(id, _)| id.to_string());
            let _span = info_span!("target", container = name).entered();
            let target = match found {
                Some((id, process)) => Target::enter(id, process, nodes),
                None => Ok(Target::own(own_pid, nodes)),
            };
            if let Some(target) = tell(target, &entered_tx) {
                let mut ended = Ended { idle_since: Instant::now(), ended_tx };
                ended.idle_since = serve(target, callers_rx, patience_rx);
            }
        };
        thread::Builder::new().name("target".into()).spawn(work).map_err(TargetError::Thread)?;
        entered_rx.recv().map_err(|_| TargetError::Failed)??;
        Ok(callers_tx)
    }
}

/// Tells who started the thread whether it is in place.
fn tell(
    target: Result<Target, EnterError>,
    entered_tx: &SyncSender<Result<(), EnterError>>,
) -> Option<Target> {
    let (target, told) = match target {
        Ok(target) => (Some(target), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let _ = entered_tx.send(told);
    target
}

/// Serves the target's tunnels on this thread; says since when there was none.
fn serve(
    target: Target,
    callers_rx: mpsc::Receiver<Caller>,
    patience_rx: watch::Receiver<Patience>,
) -> Instant {
    let (idle_tx, idle_rx) = sync_channel(1);
    let served = mirrord_tunnel::on_one_thread(async move {
        let idle_since = Beside::new(target).serve(callers_rx, patience_rx).await;
        let _ = idle_tx.send(idle_since);
        anyhow::Ok(())
    });
    if let Err(error) = served {
        error!(error = format!("{error:#}"), "the target's thread failed");
    }
    idle_rx.recv().unwrap_or_else(|_| Instant::now())
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.ended_tx.blocking_send(self.idle_since);
    }
}
