//! The tunnel that stands now, if one does, and what the agent asks through it.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use mirrord_protocol::control::{IncomingMode, PortMapping, Protocol, ProxyConfig, ProxyEvent};
use mirrord_protocol::frame::{Delivery, Description, Errno, Frame, Open, Port};
use mirrord_tunnel::{Events, Stream, Tunnel, TunnelError};
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;

use crate::datagrams::Datagrams;
use crate::incoming;
use crate::report::say;

/// What the proxy's tasks share.
pub(crate) struct Link {
    pub(crate) config: ProxyConfig,
    pub(crate) tasks: TaskTracker,
    tunnel: watch::Sender<Option<Tunnel>>,
    datagrams: OnceCell<std::rc::Weak<Datagrams>>,
    listening: RefCell<HashMap<(Protocol, u16), Vec<SocketAddr>>>,
    subscribed: RefCell<HashMap<Port, PortMapping>>,
}

impl Link {
    pub(crate) fn new(config: ProxyConfig) -> Rc<Self> {
        Rc::new(Self {
            config,
            tasks: TaskTracker::new(),
            tunnel: watch::Sender::new(None),
            datagrams: OnceCell::new(),
            listening: RefCell::default(),
            subscribed: RefCell::default(),
        })
    }

    pub(crate) fn set_datagrams(&self, datagrams: &Rc<Datagrams>) {
        let _ = self.datagrams.set(Rc::downgrade(datagrams));
    }

    pub(crate) fn datagrams(&self) -> Option<Rc<Datagrams>> {
        self.datagrams.get()?.upgrade()
    }

    /// A new tunnel stands: what was subscribed is subscribed again.
    pub(crate) fn up(&self, tunnel: &Tunnel) {
        for port in self.subscribed.borrow().keys() {
            self.subscribe_through(tunnel, *port);
        }
        self.tunnel.send_replace(Some(tunnel.clone()));
    }

    pub(crate) fn down(&self) {
        self.tunnel.send_replace(None);
    }

    /// The tunnel, once one stands.
    pub(crate) async fn tunnel(&self) -> Option<Tunnel> {
        let mut tunnel = self.tunnel.subscribe();
        tunnel.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The tunnel that stands at this moment.
    pub(crate) fn tunnel_now(&self) -> Option<Tunnel> {
        self.tunnel.borrow().clone()
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

    /// Where the app takes what came to `server`.
    pub(crate) fn app_address(&self, protocol: Protocol, server: SocketAddr) -> SocketAddr {
        let remote = Port { protocol, number: server.port() };
        let local = self.subscribed.borrow().get(&remote).map_or(server.port(), |port| port.local);
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
        let port = Port { protocol: mapping.protocol, number: mapping.remote };
        self.subscribed.borrow_mut().insert(port, mapping);
        if let Some(tunnel) = self.tunnel_now() {
            self.subscribe_through(&tunnel, port);
        }
    }

    pub(crate) fn unsubscribe(&self, mapping: PortMapping) {
        let port = Port { protocol: mapping.protocol, number: mapping.remote };
        if self.subscribed.borrow_mut().remove(&port).is_some() {
            if let Some(tunnel) = self.tunnel_now() {
                tunnel.send(&Frame::Unsubscribe(port));
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

    fn subscribed(&self, port: Port, error: Option<String>) {
        let Some(mapping) = self.subscribed.borrow().get(&port).copied() else { return };
        say(&match error {
            None => ProxyEvent::Subscribed(mapping),
            Some(reason) => ProxyEvent::SubscribeFailed { port: mapping, reason },
        });
    }
}

/// The agent, as one tunnel shows it.
pub(crate) struct Peer {
    link: Rc<Link>,
    description: RefCell<Option<Description>>,
    described: Notify,
}

impl Peer {
    pub(crate) fn new(link: Rc<Link>) -> Self {
        Self { link, description: RefCell::default(), described: Notify::new() }
    }

    /// Waits for the answer to [`Frame::Describe`].
    pub(crate) async fn description(&self) -> Description {
        loop {
            if let Some(description) = self.description.borrow_mut().take() {
                return description;
            }
            self.described.notified().await;
        }
    }
}

impl Events for Peer {
    fn opened(&self, stream: Stream, open: Open) {
        match open {
            Open::Incoming { protocol: Protocol::Tcp, delivery, client, server } => {
                let link = self.link.clone();
                self.link
                    .tasks
                    .spawn_local(incoming::connect(link, stream, delivery, client.0, server.0));
            }
            Open::Incoming { protocol: Protocol::Udp, delivery, client, server } => {
                if let Some(datagrams) = self.link.datagrams() {
                    datagrams.incoming(stream, delivery, client.0, server.0);
                }
            }
            // Only the app's side asks to be connected.
            Open::Connect(..) => stream.refuse(Errno(nix::libc::EPROTO)),
        }
    }

    fn message(&self, frame: Frame) -> Result<(), TunnelError> {
        match frame {
            Frame::Description(description) => {
                self.description.replace(Some(*description));
                self.described.notify_one();
            }
            Frame::Subscribed(port, error) => self.link.subscribed(port, error),
            Frame::MirrorLoss { packets, connections } => say(&ProxyEvent::Warning {
                message: format!(
                    "the mirror left out {connections} connections and {packets} packets: \
                     this side was too slow for a whole copy"
                ),
            }),
            _ => return Err(TunnelError::Unexpected),
        }
        Ok(())
    }
}
