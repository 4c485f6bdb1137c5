//! What the session says, as the user reads it.

use std::time::Duration;

use mirrord_protocol::control::{IncomingMode, PortMapping, Protocol, ProxyEvent};

use super::{Front, Keeping};
use crate::session::events::Event;

impl Front<'_> {
    pub(super) fn tell_ready(
        &mut self,
        name: &str,
        undelivered: &[(String, &str)],
        skipped: &[String],
    ) {
        for (variable, reason) in undelivered {
            self.progress
                .warning(&format!("the target's variable {variable} is left out: {reason}"));
        }
        for variable in skipped.iter().filter(|_| self.plan.env) {
            let text = format!("the target's variable {variable} is left out: it is not UTF-8");
            self.progress.warning(&text);
        }
        if let Some(text) = self.plan.overruled_dns() {
            self.progress.warning(&text);
        }
        let traffic = match self.plan.incoming.mode {
            IncomingMode::Mirror => "with a copy of its traffic",
            IncomingMode::Steal => "with its traffic",
            IncomingMode::Off => "without its traffic",
        };
        match (&self.plan.target, self.plan.is_remote()) {
            (None, _) => self.progress.ready("in the cluster's network, without a target"),
            (_, true) => self.progress.ready(&format!("in the place of {name}, {traffic}")),
            (_, false) => {
                self.progress.ready(&format!("in the place of container/{name}, {traffic}"));
            }
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        match event {
            Event::Step { step, took } => self.progress.step(step, took),
            Event::Proxy { said } => self.tell_proxy(said),
            Event::AgentRestarted { reason } => {
                let why = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                self.progress
                    .note(&format!("the agent beside the target ended{why}; a new one is there"));
            }
            Event::Moved { from, to } => self.tell_moved(from, to),
            Event::Lost(failure) | Event::Failed(failure) | Event::NoNetns(failure) => {
                self.progress.failure(&failure)
            }
            Event::Warning { message } => self.progress.warning(&message),
            Event::Log { from, line } => self.progress.log(&from, &line),
            Event::Cleaned { took } => {
                self.keeping = Keeping::Done;
                let took = Duration::from_millis(took).as_secs_f64();
                self.progress.detail(&format!("cleaned up ({took:.2} s)"));
            }
            Event::Ready { .. } | Event::Detached => {}
        }
    }

    fn tell_moved(&mut self, from: Option<String>, to: Option<String>) {
        let text = match (from, to) {
            (Some(from), Some(to)) => format!("pod {from} is going: the session moves to pod {to}"),
            (None, Some(to)) => format!("pod {to} is a target now"),
            (Some(from), None) => format!("pod {from} is gone: waiting for another one"),
            (None, None) => return,
        };
        self.progress.note(&text);
    }

    fn tell_proxy(&mut self, said: ProxyEvent) {
        match said {
            ProxyEvent::Subscribed(port) => {
                self.progress.detail(&format!("{} comes to the app", port_text(port)));
            }
            ProxyEvent::Unsubscribed(port) => {
                self.progress.detail(&format!("{} no longer comes to the app", port_text(port)));
            }
            ProxyEvent::SubscribeFailed { port, reason } => {
                self.progress
                    .warning(&format!("{} does not come to the app: {reason}", port_text(port)));
            }
            ProxyEvent::Disconnected { reason, .. } => {
                self.progress.note(&format!("the tunnel to the target is cut: {reason}"));
            }
            ProxyEvent::Refused { reason, .. } => {
                self.progress.detail(&format!("no tunnel to the target: {reason}"));
            }
            ProxyEvent::Reconnected { .. } => {
                self.progress.note("the tunnel to the target is back")
            }
            ProxyEvent::Restarted => self.progress.note("the proxy was killed and started again"),
            ProxyEvent::Warning { message } => self.progress.warning(&message),
            ProxyEvent::Waiting
            | ProxyEvent::Connected
            | ProxyEvent::Ready(_)
            | ProxyEvent::Failed { .. } => {}
        }
    }
}

fn port_text(port: PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    match port.local == port.remote {
        true => format!("the target's port {}/{protocol}", port.remote),
        false => format!("the target's port {}/{protocol} (here {})", port.remote, port.local),
    }
}
