//! What happens in a session, in words: for the front's user, and for whoever asks later.

use mirrord_protocol::control::{PortMapping, Protocol, ProxyEvent};

use super::events::Event;
use crate::failure::Failure;

/// An event as a user reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// For those who ask for more.
    Detail(String),
    /// Something that a user may want to know.
    Note(String),
    /// Something that is not as it should be.
    Warning(String),
    /// What ends the session.
    Failure(Failure),
}

impl Words {
    /// Of an event; those of the way up, of logs and of the end are told in another way.
    pub fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Proxy { said } => return of_proxy(said),
            Event::AgentRestarted { reason } => {
                let why = reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                Self::Note(format!("the agent beside the target ended{why}; a new one is there"))
            }
            Event::Moved { from, to } => Self::Note(moved(from.as_deref(), to.as_deref())?),
            Event::Lost(failure) | Event::Failed(failure) | Event::NoNetns(failure) => {
                Self::Failure(failure.clone())
            }
            Event::Warning { message } => Self::Warning(message.clone()),
            Event::Stopping => Self::Note("'mirrord stop' ends the session".to_owned()),
            Event::Step { .. }
            | Event::MakesImage
            | Event::Log { .. }
            | Event::Ready { .. }
            | Event::Detached
            | Event::Cleaned { .. } => return None,
        })
    }
}

fn moved(from: Option<&str>, to: Option<&str>) -> Option<String> {
    match (from, to) {
        (Some(from), Some(to)) => {
            Some(format!("pod {from} is going: the session moves to pod {to}"))
        }
        (None, Some(to)) => Some(format!("pod {to} is a target now")),
        (Some(from), None) => Some(format!("pod {from} is gone: waiting for another one")),
        (None, None) => None,
    }
}

fn of_proxy(said: &ProxyEvent) -> Option<Words> {
    Some(match said {
        ProxyEvent::Subscribed(port) => {
            Words::Detail(format!("{} comes to the app", port_text(*port)))
        }
        ProxyEvent::Unsubscribed(port) => {
            Words::Detail(format!("{} no longer comes to the app", port_text(*port)))
        }
        ProxyEvent::SubscribeFailed { port, reason } => {
            Words::Warning(format!("{} does not come to the app: {reason}", port_text(*port)))
        }
        ProxyEvent::Disconnected { reason, .. } => {
            Words::Note(format!("the tunnel to the target is cut: {reason}"))
        }
        ProxyEvent::Refused { reason, .. } => {
            Words::Detail(format!("no tunnel to the target: {reason}"))
        }
        ProxyEvent::Reconnected { kept: true, .. } => {
            Words::Note("the tunnel to the target is back".into())
        }
        ProxyEvent::Reconnected { kept: false, .. } => Words::Note(
            "there is a new tunnel to the target: connections through the old one are closed"
                .into(),
        ),
        ProxyEvent::Restarted => Words::Note("the proxy was killed and started again".into()),
        ProxyEvent::Warning { message } => Words::Warning(message.clone()),
        ProxyEvent::Waiting
        | ProxyEvent::Connected
        | ProxyEvent::Ready(_)
        | ProxyEvent::Failed { .. }
        | ProxyEvent::Left => return None,
    })
}

fn port_text(port: PortMapping) -> String {
    match port.local == port.remote {
        true => format!("the target's port {}", numbered(port)),
        false => format!("the target's port {} (here {})", numbered(port), port.local),
    }
}

/// The target's port with its protocol: `80/tcp`.
pub fn numbered(port: PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.remote)
}
