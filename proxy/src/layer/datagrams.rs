//! UDP, both ways: one socket on loopback speaks to the app as whoever is behind a slot.

mod socket;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Errno, Open, OrigDst};
use mirrord_protocol::layer::{Slot, Transport};
use mirrord_tunnel::datagrams::Readiness;
use mirrord_tunnel::{OpenError, or_pause};
use tokio::net::UdpSocket;
use tracing::debug;

use super::base::Base;
use super::call::Answer;
use super::peers::Peers;
use super::resolve::Resolver;
use super::slots::Lease;
use crate::flow::{DNS_IDLE, Flow, IDLE, Path};
use crate::names;
use crate::reception::Client;
use socket::SlotSocket;

/// So many may be remembered; what comes from others is lost.
const MOST: usize = 1 << 16;
/// A target is asked for so long whether a way leads there.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often silent flows are looked for.
const PERIOD: Duration = Duration::from_secs(5);

/// The flows of the session.
pub(super) struct Datagrams {
    base: Rc<Base>,
    resolver: Rc<Resolver>,
    socket: SlotSocket,
    peers: RefCell<Peers>,
    flows: RefCell<HashMap<Key, Flow>>,
}

/// The app's end, and the slot of the remote one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    app: SocketAddrV4,
    slot: Slot,
}

impl Datagrams {
    /// Opens the socket, on the port of a worker before this one if it is free: the app's sockets
    /// are connected to it.
    pub(super) fn open(
        base: Rc<Base>,
        resolver: Rc<Resolver>,
        port: u16,
        known: &[(SocketAddr, Slot)],
        leases: Vec<Lease>,
    ) -> anyhow::Result<Rc<Self>> {
        let socket = SlotSocket::open(port).or_else(|_| SlotSocket::open(0))?;
        base.memory.set_datagrams(socket.port())?;
        let peers = RefCell::new(Peers::recalled(known, leases));
        Ok(Rc::new(Self { base, resolver, socket, peers, flows: RefCell::default() }))
    }

    /// The stand-in of a remote address; one that is new must be somewhere.
    pub(super) async fn peer(&self, remote: SocketAddr) -> Answer {
        if !self.base.takes(Transport::Udp, remote) {
            return Answer::direct();
        }
        let is_new = !self.base.asks(remote) && !self.peers.borrow().knows(remote);
        if is_new && let Err(errno) = self.route(remote).await {
            return Answer::refused(errno.0);
        }
        match self.peers.borrow_mut().slot(&self.base, remote) {
            Ok(slot) => Answer::done(slot.0).at(self.socket.port()),
            Err(errno) => Answer::refused(errno.0),
        }
    }

    /// Has the agent connect a socket to an address, which sends nothing. Without an answer, there
    /// may be a way.
    async fn route(&self, remote: SocketAddr) -> Result<(), Errno> {
        let Some(tunnel) = self.base.link.tunnel_now() else { return Ok(()) };
        let to = OrigDst(self.base.remote(remote));
        let stream = tunnel.open(Open::Connect(Protocol::Udp, to));
        match tokio::time::timeout(PATIENCE, stream.connected()).await {
            Ok(Err(OpenError::Refused(errno))) => Err(errno),
            _ => Ok(()),
        }
    }

    /// Takes the app's datagrams as long as the process lives.
    pub(super) async fn receive(self: Rc<Self>) -> anyhow::Error {
        let readiness = match Readiness::of(&self.socket) {
            Ok(readiness) => readiness,
            Err(error) => return anyhow::Error::new(error).context("watching a socket"),
        };
        loop {
            let received = readiness.receive(|buffer| {
                let (app, to, len) = self.socket.receive(buffer)?;
                if let Some(slot) = Slot::of_remote(IpAddr::V4(to)) {
                    self.forward(Key { app, slot }, &buffer[..len]);
                }
                Ok(())
            });
            or_pause(received.await, "receiving a datagram of the app").await;
        }
    }

    /// Forgets flows that have fallen silent.
    pub(super) async fn expire(self: Rc<Self>) -> anyhow::Error {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.flows.borrow_mut().retain(|_, flow| !flow.is_silent());
        }
    }

    /// A client of the target has sent its first datagram to a socket of the app.
    pub(super) fn incoming(self: &Rc<Self>, client: Client, app: SocketAddrV4) {
        let Client { stream, delivery, address, .. } = client;
        let slot = match self.peers.borrow_mut().slot(&self.base, address) {
            Ok(slot) => slot,
            Err(errno) => return stream.refuse(errno),
        };
        if self.flows.borrow().len() >= MOST {
            return stream.refuse(Errno(nix::libc::ENOBUFS));
        }
        let key = Key { app, slot };
        let this = Rc::downgrade(self);
        stream.on_datagram(move |payload| {
            if let Some(this) = this.upgrade() {
                this.heard(key);
                this.deliver(key, &payload);
            }
        });
        self.flows.borrow_mut().insert(key, Flow::new(Path::of(stream, delivery), IDLE));
    }

    /// A client of this machine has sent a datagram to a local door.
    pub(super) fn local(
        &self,
        door: &Rc<UdpSocket>,
        client: SocketAddr,
        app: SocketAddrV4,
        payload: &[u8],
    ) {
        let Ok(slot) = self.peers.borrow_mut().slot(&self.base, client) else { return };
        let key = Key { app, slot };
        if self.flows.borrow().len() >= MOST {
            return;
        }
        let new = || Flow::new(Path::Door(door.clone(), client), IDLE);
        self.flows.borrow_mut().entry(key).or_insert_with(new).heard();
        self.deliver(key, payload);
    }

    fn forward(self: &Rc<Self>, key: Key, payload: &[u8]) {
        let Some(remote) = self.peers.borrow_mut().remote(key.slot) else { return };
        let mut flows = self.flows.borrow_mut();
        if flows.get(&key).is_none_or(Flow::is_broken) {
            if flows.len() >= MOST {
                return debug!(%remote, "too many flows of datagrams: one is lost");
            }
            let Some(flow) = self.connect(key, remote) else { return };
            flows.insert(key, flow);
        }
        let Some(flow) = flows.get_mut(&key) else { return };
        if self.base.names().ask_docker(remote) || self.base.stands_in(remote) {
            flow.remember(payload);
        }
        flow.send(payload);
    }

    /// `None` while no tunnel stands: the datagram is lost, as on any network.
    fn connect(self: &Rc<Self>, key: Key, remote: SocketAddr) -> Option<Flow> {
        let to = OrigDst(self.base.remote(remote));
        let stream = self.base.link.tunnel_now()?.open(Open::Connect(Protocol::Udp, to));
        let this = Rc::downgrade(self);
        stream.on_datagram(move |payload| {
            if let Some(this) = this.upgrade() {
                this.answer(key, remote, payload);
            }
        });
        let idle = if self.base.asks(remote) { DNS_IDLE } else { IDLE };
        Some(Flow::new(Path::Tunnel(stream), idle))
    }

    fn answer(self: &Rc<Self>, key: Key, remote: SocketAddr, payload: Bytes) {
        self.heard(key);
        let asks_docker = self.base.names().ask_docker(remote);
        let is_known = !names::failed(&payload);
        if is_known || !(asks_docker || self.base.stands_in(remote)) {
            return self.deliver(key, &payload);
        }
        let question = self.flows.borrow_mut().get_mut(&key).and_then(|flow| flow.recall(&payload));
        let Some(question) = question else { return self.deliver(key, &payload) };
        let this = self.clone();
        self.base.link.tasks.spawn_local(async move {
            let answer = match asks_docker {
                true => names::ask_embedded(&question).await,
                false => this.resolver.search(&question).await,
            };
            this.deliver(key, &answer.unwrap_or(payload));
        });
    }

    fn heard(&self, key: Key) {
        if let Ok(mut flows) = self.flows.try_borrow_mut()
            && let Some(flow) = flows.get_mut(&key)
        {
            flow.heard();
        }
    }

    fn deliver(&self, key: Key, payload: &[u8]) {
        if let Err(error) = self.socket.send(key.slot, key.app, payload) {
            debug!(app = %key.app, %error, "a datagram for the app was lost");
        }
    }
}
