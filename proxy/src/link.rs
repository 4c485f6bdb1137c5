//! The tunnels that stand now, if any do, and what the app wants of the targets behind them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

use mirrord_protocol::control::{
    IncomingMode, PortMapping, Protocol, ProxyConfig, ProxyEvent, TargetIndex,
};
use mirrord_protocol::frame::{Delivery, Frame, Port};
use mirrord_tunnel::Tunnel;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::reception::Reception;
use crate::report::say;
use crate::subscriptions::Subscriptions;

/// What the proxy's tasks share.
pub(crate) struct Link {
    pub(crate) config: ProxyConfig,
    pub(crate) tasks: TaskTracker,
    tunnels: RefCell<BTreeMap<TargetIndex, Route>>,
    /// The one that the app's own traffic takes.
    first: watch::Sender<Option<Tunnel>>,
    reception: OnceCell<Weak<dyn Reception>>,
    listening: RefCell<HashMap<(Protocol, u16), Vec<SocketAddr>>>,
    subscriptions: RefCell<Subscriptions>,
    leaving: Cell<bool>,
}

/// The way to one target.
struct Route {
    tunnel: Tunnel,
    /// Whether it has a pipe.
    live: bool,
}

impl Link {
    pub(crate) fn new(config: ProxyConfig) -> Rc<Self> {
        Rc::new(Self {
            config,
            tasks: TaskTracker::new(),
            tunnels: RefCell::default(),
            first: watch::Sender::new(None),
            reception: OnceCell::new(),
            listening: RefCell::default(),
            subscriptions: RefCell::default(),
            leaving: Cell::new(false),
        })
    }

    pub(crate) fn set_reception(&self, reception: Weak<dyn Reception>) {
        let _ = self.reception.set(reception);
    }

    /// Who takes the target's clients to the app; nobody before the app may start.
    pub(crate) fn reception(&self) -> Option<Rc<dyn Reception>> {
        self.reception.get()?.upgrade()
    }

    /// A new tunnel stands: what was subscribed is subscribed there as well.
    pub(crate) fn up(&self, target: TargetIndex, tunnel: &Tunnel) {
        for port in self.subscriptions.borrow().ports() {
            self.subscribe_through(tunnel, port);
        }
        let route = Route { tunnel: tunnel.clone(), live: true };
        self.tunnels.borrow_mut().insert(target, route);
        self.choose_first();
    }

    /// Whether a tunnel to a target was ever said to stand.
    pub(crate) fn knows(&self, target: TargetIndex) -> bool {
        self.tunnels.borrow().contains_key(&target)
    }

    /// A tunnel has lost its pipe, or has another.
    pub(crate) fn set_live(&self, target: TargetIndex, live: bool) {
        if let Some(route) = self.tunnels.borrow_mut().get_mut(&target) {
            route.live = live;
        }
        self.choose_first();
    }

    pub(crate) fn down(&self, target: TargetIndex) {
        if self.tunnels.borrow_mut().remove(&target).is_some() {
            self.choose_first();
        }
    }

    /// A target will not come back.
    pub(crate) fn forget(&self, target: TargetIndex) {
        self.subscriptions.borrow_mut().forget(target);
    }

    fn choose_first(&self) {
        let first = {
            let tunnels = self.tunnels.borrow();
            let mut routes = tunnels.values();
            let live = tunnels.values().find(|route| route.live);
            live.or_else(|| routes.next()).map(|route| route.tunnel.clone())
        };
        self.first.send_replace(first);
    }

    /// The agents are told that nothing more comes; says when they were.
    pub(crate) async fn leave(&self) {
        self.leaving.set(true);
        let live: Vec<Tunnel> = {
            let tunnels = self.tunnels.borrow();
            tunnels.values().filter(|route| route.live).map(|route| route.tunnel.clone()).collect()
        };
        live.iter().for_each(Tunnel::finish);
        for tunnel in live {
            tunnel.over().await;
        }
    }

    /// Whether tunnels end because this process does.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// The tunnel of the first target that has one, once there is one.
    pub(crate) async fn tunnel(&self) -> Option<Tunnel> {
        let mut first = self.first.subscribe();
        first.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The tunnel of the first target that has one at this moment.
    pub(crate) fn tunnel_now(&self) -> Option<Tunnel> {
        self.first.borrow().clone()
    }

    /// Whether all that the app has sent to its end has arrived.
    pub(crate) fn is_delivered(&self) -> bool {
        self.tunnels.borrow().values().all(|route| route.tunnel.is_delivered())
    }

    /// Says on which addresses the app listens for a port; none: on none any more.
    pub(crate) fn set_listening(&self, protocol: Protocol, port: u16, at: Vec<SocketAddr>) {
        let mut listening = self.listening.borrow_mut();
        if at.is_empty() {
            listening.remove(&(protocol, port));
        } else {
            listening.insert((protocol, port), at);
        }
    }

    /// The app's port for one of the target's.
    pub(crate) fn local_port(&self, protocol: Protocol, remote: u16) -> u16 {
        let port = Port { protocol, number: remote };
        self.subscriptions.borrow().local(port).unwrap_or(remote)
    }

    /// Where the app takes what came to `server`.
    pub(crate) fn app_address(&self, protocol: Protocol, server: SocketAddr) -> SocketAddr {
        let local = self.local_port(protocol, server.port());
        let ours = SocketAddr::new(server.ip(), local);
        let listening = self.listening.borrow();
        let Some(at) = listening.get(&(protocol, local)) else { return ours };
        let takes = |ip: IpAddr| ip == server.ip() || ip.is_unspecified();
        if at.iter().any(|address| takes(address.ip())) {
            return ours;
        }
        at.iter().find(|at| at.is_ipv4() == server.is_ipv4()).copied().unwrap_or(ours)
    }

    pub(crate) fn subscribe(&self, mapping: PortMapping) {
        let port = self.subscriptions.borrow_mut().add(mapping);
        for route in self.tunnels.borrow().values() {
            self.subscribe_through(&route.tunnel, port);
        }
    }

    pub(crate) fn unsubscribe(&self, mapping: PortMapping) {
        let port = Port { protocol: mapping.protocol, number: mapping.remote };
        if self.subscriptions.borrow_mut().remove(port) {
            for route in self.tunnels.borrow().values() {
                route.tunnel.send(&Frame::Unsubscribe(port));
            }
            say(&ProxyEvent::Unsubscribed(mapping));
        }
    }

    fn subscribe_through(&self, tunnel: &Tunnel, port: Port) {
        let delivery = match self.config.incoming.mode {
            IncomingMode::Off => return,
            IncomingMode::Mirror => Delivery::Mirror,
            IncomingMode::Steal => Delivery::Steal,
        };
        tunnel.send(&Frame::Subscribe(port, delivery));
    }

    /// A target has answered.
    pub(crate) fn subscribed(&self, target: TargetIndex, port: Port, error: Option<String>) {
        let event = self.subscriptions.borrow_mut().answer(target, port, error);
        if let Some(event) = event {
            say(&event);
        }
    }
}
