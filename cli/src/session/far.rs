//! The far side of a session: the target and the agents beside it.

use super::beside::Beside;
use super::events::Event;
use super::remote::Remote;
use crate::failure::Failure;
use crate::lock::Pinned;

/// Where the target is.
pub enum Far {
    /// In the sidecar's own engine.
    Beside(Box<Beside>),
    /// In a cluster.
    Remote(Box<Remote>),
}

/// What the far side says.
#[derive(Debug)]
pub enum FarSaid {
    /// Something for the front.
    Event(Event),
    /// The session can't go on.
    Lost(Failure),
}

impl Far {
    /// What it says next. Can be cancelled without loss.
    pub async fn next(&mut self) -> FarSaid {
        match self {
            Self::Beside(beside) => beside.next().await,
            Self::Remote(remote) => remote.next().await,
        }
    }

    /// The target, as messages name it.
    pub fn target(&self) -> &str {
        match self {
            Self::Beside(beside) => beside.target(),
            Self::Remote(remote) => remote.target(),
        }
    }

    /// What of the target a run can depend on.
    pub fn pinned(&self) -> Pinned {
        match self {
            Self::Beside(beside) => beside.pinned(),
            Self::Remote(remote) => remote.pinned(),
        }
    }

    /// Whether something may still be on its way into existence.
    pub fn is_unsettled(&self) -> bool {
        match self {
            Self::Beside(beside) => beside.is_unsettled(),
            Self::Remote(_) => false,
        }
    }

    /// The last words of the agents, to explain what went wrong.
    pub fn last_words(&self) -> &[String] {
        match self {
            Self::Beside(beside) => beside.last_words(),
            Self::Remote(_) => &[],
        }
    }

    /// Takes the agents away, once the proxy has gone; whether that is done.
    pub async fn leave(&mut self) -> bool {
        match self {
            Self::Beside(beside) => beside.leave().await,
            Self::Remote(remote) => remote.leave().await,
        }
    }
}
