//! The app's own ports: bound to fake ones on its behalf, watched, subscribed and given back.

mod bind;
mod local;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use mirrord_netns::Proto;
use mirrord_netns::listeners::{Listening, Scanner};
use mirrord_protocol::control::{IncomingMode, LayerConfig, PortMapping, Protocol};
use mirrord_protocol::frame::Errno;
use mirrord_protocol::layer::Transport;
use nix::libc;
use socket2::Socket;
use tracing::warn;

use super::base::{Base, protocol, written};
use super::call::Answer;
use super::claims::{Claim, Claims, Wanted};
use super::datagrams::Datagrams;
use crate::ports::Rules;
use local::Doors;

/// How often it is looked whether the app's sockets are still there.
const PERIOD: Duration = Duration::from_millis(250);

/// The app's ports.
pub(crate) struct Ports {
    base: Rc<Base>,
    rules: Rules,
    /// Each port with the fake one that it must get.
    fixed: Vec<(u16, u16)>,
    claims: RefCell<Claims>,
    subscribed: RefCell<BTreeSet<(Protocol, u16)>>,
    scanner: RefCell<Scanner>,
    doors: Doors,
    datagrams: Rc<Datagrams>,
}

impl Ports {
    pub(crate) fn new(
        base: Rc<Base>,
        config: &LayerConfig,
        scanner: Scanner,
        datagrams: Rc<Datagrams>,
        asked: &[(Transport, u16, SocketAddr)],
    ) -> Rc<Self> {
        Rc::new(Self {
            rules: Rules::new(&base.link.config.incoming, Vec::new()),
            fixed: config.listen_ports.clone(),
            claims: Claims::recalled(asked).into(),
            subscribed: RefCell::default(),
            scanner: scanner.into(),
            doors: Doors::default(),
            datagrams,
            base,
        })
    }

    /// Binds a socket of the app to a fake port.
    pub(crate) fn bind(
        self: &Rc<Self>,
        socket: Option<OwnedFd>,
        transport: Transport,
        address: SocketAddr,
    ) -> Answer {
        let Some(socket) = socket.map(Socket::from) else { return Answer::refused(libc::EBADF) };
        if !self.counts(transport, address) {
            return Answer::direct();
        }
        match self.claim(&socket, transport, address) {
            Ok(fake) => Answer::done(fake.into()),
            Err(errno) => Answer::refused(errno.0),
        }
    }

    /// Whether a port is of our concern: one that the target's clients may come to, or one that
    /// stands on an address that only the target has.
    fn counts(&self, transport: Transport, address: SocketAddr) -> bool {
        self.mapping(protocol(transport), address.port()).is_some()
            || self.base.is_targets(address.ip())
    }

    fn mapping(&self, protocol: Protocol, port: u16) -> Option<PortMapping> {
        let off = self.base.link.config.incoming.mode == IncomingMode::Off;
        self.rules.mapping(protocol, port).filter(|_| !off)
    }

    fn claim(
        self: &Rc<Self>,
        socket: &Socket,
        transport: Transport,
        address: SocketAddr,
    ) -> Result<u16, Errno> {
        let shape = bind::Shape::of(socket, transport)?;
        let wanted = Wanted { transport, address, v6_only: shape.v6_only };
        if !self.base.is_targets(address.ip()) {
            bind::check_address(address.ip())?;
        }
        let (same, rivals) = {
            let claims = self.claims.borrow();
            (claims.same(&wanted), claims.rivals(&wanted))
        };
        if same.is_none() && self.claims.borrow().is_full() {
            return Err(Errno(libc::ENOBUFS));
        }
        for rival in rivals {
            shape.try_bind(rival)?;
        }
        let taken = |fake| self.claims.borrow().has(transport, fake);
        let fixed = self.fixed.iter().find(|(port, _)| *port == address.port());
        let fixed = fixed.filter(|(_, fake)| !taken(*fake));
        let fake = match (same, fixed) {
            (Some(fake), _) | (None, Some(&(_, fake))) => fake,
            (None, None) => self.free_port(transport)?,
        };
        shape.bind(socket, fake)?;
        if same.is_none() {
            self.enter(Claim { wanted, fake, listening: transport == Transport::Udp })?;
        }
        Ok(fake)
    }

    /// A port that nobody has, and that is none of ours under another name.
    fn free_port(&self, transport: Transport) -> Result<u16, Errno> {
        for _ in 0..16 {
            let port = bind::free_port(transport)?;
            if !self.claims.borrow().knows(transport, port) {
                return Ok(port);
            }
        }
        Err(Errno(libc::EADDRINUSE))
    }

    fn enter(self: &Rc<Self>, claim: Claim) -> Result<(), Errno> {
        let Claim { wanted, fake, .. } = claim;
        let memory = &self.base.memory;
        written(memory.set_asked(wanted.transport, fake, Some(wanted.address)))?;
        self.claims.borrow_mut().insert(claim);
        self.show_loopback(&wanted)?;
        if claim.listening {
            self.refresh();
        }
        Ok(())
    }

    fn leave(&self, claim: &Claim) -> Result<(), Errno> {
        let Claim { wanted, fake, .. } = claim;
        self.claims.borrow_mut().remove(wanted);
        written(self.base.memory.set_asked(wanted.transport, *fake, None))?;
        self.show_loopback(wanted)
    }

    fn show_loopback(&self, wanted: &Wanted) -> Result<(), Errno> {
        let (transport, port) = (wanted.transport, wanted.port());
        let fake = self.claims.borrow().on_loopback(transport, port);
        written(self.base.memory.set_fake(transport, port, fake))
    }

    /// A TCP socket that was bound to a fake port listens now.
    pub(crate) fn listens(self: &Rc<Self>, fake: u16) -> Answer {
        self.claims.borrow_mut().set_listening(Transport::Tcp, fake, true);
        self.refresh();
        Answer::done(0)
    }

    /// Where the app takes what came to an address of a target, on loopback.
    pub(crate) fn taker(&self, transport: Transport, server: SocketAddr) -> Option<SocketAddrV4> {
        let port = self.base.link.local_port(protocol(transport), server.port());
        self.listener(transport, SocketAddr::new(server.ip(), port))
    }

    /// Where the app listens for what comes to an address of its own, on loopback.
    pub(crate) fn listener(&self, transport: Transport, at: SocketAddr) -> Option<SocketAddrV4> {
        let fake = self.claims.borrow().taker(transport, at)?;
        Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, fake))
    }

    /// The fake port of those who asked for the very same.
    fn fake_of(&self, wanted: &Wanted) -> Option<u16> {
        self.claims.borrow().same(wanted)
    }

    /// Looks again and again whether the app's sockets are still there, as long as the process
    /// lives.
    pub(crate) async fn watch(self: Rc<Self>) -> anyhow::Error {
        loop {
            tokio::time::sleep(PERIOD).await;
            if self.claims.borrow().iter().next().is_none() {
                continue;
            }
            let scanned = self.scanner.borrow_mut().scan();
            match scanned {
                Ok(found) => self.look(&found),
                Err(error) => {
                    return anyhow::Error::new(error).context("looking for the app's sockets");
                }
            }
        }
    }

    fn look(self: &Rc<Self>, found: &[Listening]) {
        let listening: BTreeSet<(Proto, u16)> = found
            .iter()
            .filter(|socket| socket.address.ip().to_canonical() == Ipv4Addr::LOCALHOST)
            .map(|socket| (socket.proto, socket.address.port()))
            .collect();
        let claims: Vec<Claim> = self.claims.borrow().iter().copied().collect();
        for claim in claims {
            let Claim { wanted: Wanted { transport, .. }, fake, .. } = claim;
            let listens = listening.contains(&(proto(transport), fake));
            if !listens && !bind::is_taken(transport, fake) {
                if let Err(errno) = self.leave(&claim) {
                    warn!(errno = errno.0, "a port could not be given back");
                }
            } else if transport == Transport::Tcp {
                self.claims.borrow_mut().set_listening(transport, fake, listens);
            }
        }
        self.refresh();
    }

    /// Subscribes what listens, gives back what does not, and opens or closes doors for it.
    fn refresh(self: &Rc<Self>) {
        let claims = self.claims.borrow();
        let listening: Vec<Wanted> =
            claims.iter().filter(|claim| claim.listening).map(|claim| claim.wanted).collect();
        drop(claims);
        let now: BTreeSet<(Protocol, u16)> =
            listening.iter().map(|wanted| (protocol(wanted.transport), wanted.port())).collect();
        let before = self.subscribed.replace(now.clone());
        let link = &self.base.link;
        for (protocol, port) in before.difference(&now) {
            if let Some(mapping) = self.mapping(*protocol, *port) {
                link.unsubscribe(mapping);
            }
        }
        for (protocol, port) in now.difference(&before) {
            if let Some(mapping) = self.mapping(*protocol, *port) {
                link.subscribe(mapping);
            }
        }
        self.doors.keep(self, &listening);
    }
}

fn proto(transport: Transport) -> Proto {
    match transport {
        Transport::Tcp => Proto::Tcp,
        Transport::Udp => Proto::Udp,
    }
}
