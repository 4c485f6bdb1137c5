//! What the keeper tells the front: JSON lines.

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

use mirrord_protocol::control::{ProxyEvent, Target};
use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::engine::containers::Role;
use crate::failure::Failure;
use crate::lock::Pinned;

/// A step on the way to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The engine answered and the target is there.
    Target,
    /// Our image was made, since it was not there.
    Image,
    /// The sidecar runs.
    Sidecar,
    /// The agent's pod runs, with a starter that waits for its program.
    Pod,
    /// The agent's program is in its pod.
    Delivery,
    /// The agent runs beside the target.
    Agent,
    /// The tunnel stands.
    Tunnel,
    /// Names and steering stand.
    Network,
}

impl Step {
    /// The step in words, when it is done.
    pub fn done(self) -> &'static str {
        match self {
            Self::Target => "target found",
            Self::Image => "image made",
            Self::Sidecar => "sidecar started",
            Self::Pod => "agent's pod started",
            Self::Delivery => "agent's program delivered",
            Self::Agent => "agent started",
            Self::Tunnel => "tunnel up",
            Self::Network => "network ready",
        }
    }

    /// What is waited for once the step is done.
    pub fn next(self) -> &'static str {
        match self {
            Self::Target | Self::Image => "starting the sidecar",
            Self::Pod => "sending the agent",
            Self::Delivery => "starting the agent",
            Self::Sidecar | Self::Agent => "waiting for the tunnel",
            Self::Tunnel | Self::Network => "preparing the network",
        }
    }
}

/// What happens in a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step is done.
    Step {
        /// Which one.
        step: Step,
        /// Milliseconds that the step took.
        took: u64,
    },
    /// Our image is being made, as it is once for each version.
    MakesImage,
    /// The app may start.
    Ready {
        /// The sidecar's id: the app joins its network. A process of this machine has none.
        sidecar: Option<String>,
        /// The target, as the user names it.
        name: String,
        /// The target.
        target: Target,
        /// What of the target a run can depend on.
        pinned: Pinned,
        /// What the app's image has loaded into its programs, if the preload library joins it.
        preloaded: Option<String>,
    },
    /// Something that the proxy says of the running session.
    Proxy {
        /// What it says.
        said: ProxyEvent,
    },
    /// The agent ended and a new one was started.
    AgentRestarted {
        /// Why it ended, if it said so.
        reason: Option<String>,
    },
    /// A pod has come to be a target, has gone, or has taken another's place.
    Moved {
        /// The one that has gone.
        from: Option<String>,
        /// The one that has come.
        to: Option<String>,
    },
    /// The session cannot go on; the app is being stopped.
    Lost(Failure),
    /// The session could not be brought up.
    Failed(Failure),
    /// The session could not be brought up since the kernel may not redirect; the layer can.
    NoNetns(Failure),
    /// Something that the user should know.
    Warning {
        /// One sentence.
        message: String,
    },
    /// A line of the proxy's or the agent's log.
    Log {
        /// `proxy` or `agent`.
        from: String,
        /// The line.
        line: String,
    },
    /// The app goes on without its client, and the session with it.
    Detached,
    /// The session ends because somebody wants it to; the app is being stopped.
    Stopping,
    /// Nothing of the session is left in the engine.
    Cleaned {
        /// Milliseconds that it took.
        took: u64,
    },
}

/// A duration as the events carry it.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where the keeper's events go: to the front, and into the session's record.
#[derive(Default)]
pub struct Reporter {
    /// What whoever asks later is told.
    pub record: RefCell<Record>,
}

impl Reporter {
    /// Says an event; a front that is gone does not hear it, and that is no failure.
    pub fn say(&self, event: &Event) {
        self.record.borrow_mut().hear(event);
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
        }
    }

    /// Says a line of a log.
    pub fn log(&self, from: Role, line: String) {
        self.say(&Event::Log { from: from.word().to_owned(), line });
    }
}
