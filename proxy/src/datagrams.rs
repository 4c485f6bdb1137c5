//! UDP, both ways: one stream for each pair of the app's address and a remote one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mirrord_netns::MARK_DIRECT;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Open, OrigDst};
use mirrord_tunnel::datagrams::{Readiness, connected, receive};
use mirrord_tunnel::or_pause;
use socket2::SockRef;
use tracing::debug;

use crate::flow::{DNS_IDLE, Flow, IDLE, Path};
use crate::link::Link;
use crate::place::Netns;
use crate::reception::{Client, Reception};
use crate::{incoming, names};

/// The flows of the namespace.
pub(crate) struct Datagrams {
    link: Rc<Link>,
    place: Rc<Netns>,
    flows: RefCell<HashMap<Key, Flow>>,
}

/// The app's end and the remote one. A client of the app is remote; the app's address is left
/// open there, since the app may answer from another one than it was asked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Outgoing { app: SocketAddr, to: SocketAddr },
    Incoming { port: u16, client: SocketAddr },
}

impl Datagrams {
    pub(crate) fn new(link: Rc<Link>, place: Rc<Netns>) -> Rc<Self> {
        Rc::new(Self { link, place, flows: RefCell::default() })
    }

    /// Takes the app's datagrams as long as the process lives.
    pub(crate) async fn receive(
        self: Rc<Self>,
        index: usize,
        readiness: Readiness,
    ) -> anyhow::Error {
        loop {
            let received = readiness.receive(|buffer| {
                let datagram = self.place.receive(index, buffer)?;
                self.forward(datagram.from, datagram.to, &buffer[..datagram.len]);
                Ok(())
            });
            or_pause(received.await, "receiving a datagram of the app").await;
        }
    }

    /// Forgets flows that have fallen silent.
    pub(crate) async fn expire(self: Rc<Self>) -> anyhow::Error {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            self.flows.borrow_mut().retain(|_, flow| !flow.is_silent());
        }
    }

    fn forward(self: &Rc<Self>, app: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let answer = Key::Incoming { port: app.port(), client: to };
        let mut flows = self.flows.borrow_mut();
        if let Some(flow) = flows.get_mut(&answer).filter(|flow| !flow.is_broken()) {
            return flow.send(payload);
        }
        let key = Key::Outgoing { app, to };
        if flows.get(&key).is_none_or(Flow::is_broken) {
            if self.link.config.published_udp.contains(&app.port()) {
                return self.answer_directly(app, to, payload);
            }
            let Some(flow) = self.open(app, to) else { return };
            flows.insert(key, flow);
        }
        let Some(flow) = flows.get_mut(&key) else { return };
        if self.place.names().ask_docker(to) {
            flow.remember(payload);
        }
        flow.send(payload);
    }

    /// A published port answers a client that no tunnel brought: it came to our own address.
    fn answer_directly(&self, app: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let Some(&own) = self.place.own.iter().find(|own| own.is_ipv4() == to.is_ipv4()) else {
            return;
        };
        if let Err(error) = self.place.direct.send(SocketAddr::new(own, app.port()), to, payload) {
            debug!(%app, %to, %error, "an answer of a published port was lost");
        }
    }

    /// `None` while no tunnel stands: the datagram is lost, as on any network.
    fn open(self: &Rc<Self>, app: SocketAddr, to: SocketAddr) -> Option<Flow> {
        let asks = self.place.names().answers_at(to);
        if !self.link.config.outgoing_udp && !asks {
            return self.open_direct(app, to);
        }
        let to_agent = OrigDst(self.place.names().remote(to));
        let stream = self.link.tunnel_now()?.open(Open::Connect(Protocol::Udp, to_agent));
        let this = Rc::downgrade(self);
        stream.on_datagram(move |payload| {
            if let Some(this) = this.upgrade() {
                this.answer(app, to, payload);
            }
        });
        let this = Rc::downgrade(self);
        stream.on_refusal(move |errno| {
            if let Some(this) = this.upgrade()
                && let Err(error) = this.place.sender.refuse(to, app, errno.0)
            {
                debug!(%app, %to, %error, "a refusal was lost");
            }
        });
        Some(Flow::new(Path::Tunnel(stream), if asks { DNS_IDLE } else { IDLE }))
    }

    fn open_direct(self: &Rc<Self>, app: SocketAddr, to: SocketAddr) -> Option<Flow> {
        let socket = match connected(to, |socket| SockRef::from(socket).set_mark(MARK_DIRECT)) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                debug!(%to, %error, "a datagram could not go out directly");
                return None;
            }
        };
        let (this, answers) = (Rc::downgrade(self), socket.clone());
        self.link.tasks.spawn_local(async move {
            let key = Key::Outgoing { app, to };
            loop {
                let received = receive(&answers, |payload| {
                    if let Some(this) = this.upgrade() {
                        this.heard(key);
                        this.deliver(to, app, payload);
                    }
                });
                let silent = tokio::time::timeout(IDLE, received).await.is_err();
                if silent || this.upgrade().is_none() {
                    return;
                }
            }
        });
        Some(Flow::new(Path::Direct(socket), IDLE))
    }

    fn answer(self: &Rc<Self>, app: SocketAddr, to: SocketAddr, payload: Bytes) {
        let key = Key::Outgoing { app, to };
        self.heard(key);
        if !self.place.names().ask_docker(to) || !names::failed(&payload) {
            return self.deliver(to, app, &payload);
        }
        let question = self.flows.borrow_mut().get_mut(&key).and_then(|flow| flow.recall(&payload));
        let Some(question) = question else { return self.deliver(to, app, &payload) };
        let this = self.clone();
        self.link.tasks.spawn_local(async move {
            let answer = names::ask_embedded(&question).await.unwrap_or(payload);
            this.deliver(to, app, &answer);
        });
    }

    fn heard(&self, key: Key) {
        if let Ok(mut flows) = self.flows.try_borrow_mut()
            && let Some(flow) = flows.get_mut(&key)
        {
            flow.heard();
        }
    }

    fn deliver(&self, from: SocketAddr, app: SocketAddr, payload: &[u8]) {
        if let Err(error) = self.place.sender.send(from, app, payload) {
            debug!(%from, %app, %error, "a datagram for the app was lost");
        }
    }
}

impl Reception for Datagrams {
    fn connection(self: Rc<Self>, client: Client) {
        self.link.tasks.spawn_local(incoming::connect(self.link.clone(), client));
    }

    fn datagrams(self: Rc<Self>, client: Client) {
        let Client { stream, delivery, address: client, server } = client;
        let app = self.link.app_address(Protocol::Udp, server);
        let key = Key::Incoming { port: app.port(), client };
        let this = Rc::downgrade(&self);
        stream.on_datagram(move |payload| {
            if let Some(this) = this.upgrade() {
                this.heard(key);
                this.deliver(client, app, &payload);
            }
        });
        let path = Path::of(stream, delivery);
        self.flows.borrow_mut().insert(key, Flow::new(path, IDLE));
    }
}
