//! The ports that the app wants, and what the targets have said of each.

use std::collections::{BTreeSet, HashMap};

use mirrord_protocol::control::{PortMapping, ProxyEvent, TargetIndex};
use mirrord_protocol::frame::Port;

/// Ports by their number at the targets.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(HashMap<Port, Wanted>);

#[derive(Debug)]
struct Wanted {
    mapping: PortMapping,
    /// Whether the user knows that it comes.
    told: bool,
    /// Whose traffic for it could not be had.
    failed: BTreeSet<TargetIndex>,
}

impl Subscriptions {
    pub(crate) fn add(&mut self, mapping: PortMapping) -> Port {
        let port = Port { protocol: mapping.protocol, number: mapping.remote };
        self.0.insert(port, Wanted { mapping, told: false, failed: BTreeSet::new() });
        port
    }

    /// False if it was not wanted.
    pub(crate) fn remove(&mut self, port: Port) -> bool {
        self.0.remove(&port).is_some()
    }

    pub(crate) fn ports(&self) -> impl Iterator<Item = Port> {
        self.0.keys().copied()
    }

    /// Where the app listens for a port of the targets.
    pub(crate) fn local(&self, port: Port) -> Option<u16> {
        self.0.get(&port).map(|wanted| wanted.mapping.local)
    }

    /// A target answers; what is to be said of it: each port's success once, and its failure once
    /// until no target fails any more.
    pub(crate) fn answer(
        &mut self,
        target: TargetIndex,
        port: Port,
        error: Option<String>,
    ) -> Option<ProxyEvent> {
        let wanted = self.0.get_mut(&port)?;
        let Some(reason) = error else {
            let recovered = wanted.failed.remove(&target) && wanted.failed.is_empty();
            let known = std::mem::replace(&mut wanted.told, true);
            return (!known || recovered).then_some(ProxyEvent::Subscribed(wanted.mapping));
        };
        let first = wanted.failed.is_empty();
        wanted.failed.insert(target);
        first.then_some(ProxyEvent::SubscribeFailed { port: wanted.mapping, reason })
    }

    /// A target will not come back.
    pub(crate) fn forget(&mut self, target: TargetIndex) {
        for wanted in self.0.values_mut() {
            wanted.failed.remove(&target);
        }
    }
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::control::Protocol;

    use super::*;

    fn said(event: Option<ProxyEvent>) -> &'static str {
        match event {
            None => "",
            Some(ProxyEvent::Subscribed(_)) => "subscribed",
            Some(ProxyEvent::SubscribeFailed { .. }) => "failed",
            Some(_) => "?",
        }
    }

    fn port_80() -> (Subscriptions, Port) {
        let mut ports = Subscriptions::default();
        let port = ports.add(PortMapping { protocol: Protocol::Tcp, local: 8080, remote: 80 });
        (ports, port)
    }

    #[test]
    fn success_is_said_once_however_many_targets_and_reconnections() {
        let (mut ports, port) = port_80();
        assert_eq!(ports.local(port), Some(8080));
        let said = [0, 1, 2, 0].map(|target| said(ports.answer(target, port, None)));
        assert_eq!(said, ["subscribed", "", "", ""]);
    }

    #[test]
    fn failure_is_said_once_beside_the_success_of_another() {
        let (mut ports, port) = port_80();
        let mut answer = |target, error: Option<&str>| {
            said(ports.answer(target, port, error.map(str::to_owned)))
        };
        assert_eq!(answer(0, None), "subscribed");
        assert_eq!(answer(1, Some("taken")), "failed");
        assert_eq!(answer(2, Some("taken")), "");
        assert_eq!(answer(1, Some("taken")), "", "again after a reconnection");
        assert_eq!(answer(1, None), "", "the other one still fails");
        assert_eq!(answer(2, None), "subscribed", "none fails any more");
        assert_eq!(answer(1, Some("taken")), "failed");
    }

    #[test]
    fn a_target_that_is_gone_fails_no_more() {
        let (mut ports, port) = port_80();
        assert_eq!(said(ports.answer(0, port, Some("taken".into()))), "failed");
        ports.forget(0);
        assert_eq!(said(ports.answer(1, port, Some("taken".into()))), "failed");
        assert_eq!(said(ports.answer(1, port, None)), "subscribed");
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_spoken_of() {
        let (mut ports, port) = port_80();
        assert!(ports.remove(port));
        assert!(!ports.remove(port));
        assert_eq!(said(ports.answer(0, port, None)), "");
        assert_eq!(ports.ports().count(), 0);
    }
}
