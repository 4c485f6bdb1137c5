//! The layer plane: what the preload library in the app's processes asks is answered here.
//!
//! ```text
//!   process ── question ──► server ─┬─ ports      bind, listen: fake ports, subscriptions
//!      ▲                            ├─ dial       connect: through the tunnel, completed by sink
//!      │ reads                      ├─ datagrams  the same for UDP, both ways
//!      └──────── memory ◄── slots ──┼─ resolve    names as the target resolves them
//!                                   ├─ exec       static programs, rewritten
//!                                   └─ unix       unix sockets of the target
//! ```

mod base;
mod call;
mod claims;
mod datagrams;
mod dial;
mod exec;
mod heritage;
mod memory;
mod peers;
mod ports;
mod recall;
mod resolve;
mod rewrite;
mod seat;
mod server;
mod sink;
mod slots;
mod surroundings;
mod unix;

use std::cell::RefCell;
use std::fs::File;
use std::net::{SocketAddr, SocketAddrV4};
use std::rc::{Rc, Weak};

use anyhow::Context;
use mirrord_netns::listeners::Scanner;
use mirrord_protocol::control::{LayerConfig, ProxyConfig};
use mirrord_protocol::frame::{Description, Errno};
use mirrord_protocol::layer::{Cause, Request, Transport};
use nix::libc;
use tokio::task::JoinSet;

use crate::incoming;
use crate::link::Link;
use crate::place::Files;
use crate::reception::{Client, Reception};
use base::{Base, protocol};
use call::{Answer, Call, CallError};
use datagrams::Datagrams;
use exec::Programs;
pub(crate) use heritage::Heritage;
use memory::{Ends, Memory};
use ports::Ports;
use recall::Past;
use resolve::Resolver;
use server::{Answers, Server};
use sink::{Sink, connect_from};
use slots::Slots;
use surroundings::Surroundings;
pub(crate) use unix::UnixAlone;
use unix::UnixSockets;

/// The preload library in the form that static programs take.
#[derive(Clone, Copy)]
pub(crate) struct StaticLayer(pub(crate) &'static [u8]);

/// What a worker is born with.
pub(crate) struct Provision {
    pub(crate) static_layer: StaticLayer,
    /// Nothing if the process before this one has left nothing.
    pub(crate) heritage: Option<Heritage>,
}

/// What stands once the app's processes may ask.
pub(crate) struct Layer {
    base: Rc<Base>,
    sink: Rc<Sink>,
    ports: Rc<Ports>,
    datagrams: Rc<Datagrams>,
    resolver: Rc<Resolver>,
    programs: Programs,
    unix: UnixSockets,
    /// Whether the app sees the target's host name.
    hostname: bool,
    /// None if /etc is not the session's own.
    files: Option<RefCell<Files>>,
}

impl Layer {
    /// Answers from now on, in `tasks`.
    pub(crate) fn take(
        link: &Rc<Link>,
        config: &LayerConfig,
        targets: &[&Description],
        provision: &Provision,
        tasks: &mut JoinSet<anyhow::Error>,
    ) -> anyhow::Result<Rc<Self>> {
        let heritage = Heritage::of_worker(provision, config);
        let Heritage { memory, listener } =
            heritage.context("listening for the app's processes")?;
        let server = Server::new(listener, config).context("listening for the app's processes")?;
        let layer = Self::set_up(link, config, targets, provision.static_layer, memory)?;
        let layer = Rc::new(layer);
        layer.change(&link.config, targets)?;
        let reception: Weak<Self> = Rc::downgrade(&layer);
        link.set_reception(reception);
        tasks.spawn_local(server.run(layer.clone()));
        tasks.spawn_local(layer.ports.clone().watch());
        tasks.spawn_local(layer.datagrams.clone().receive());
        tasks.spawn_local(layer.datagrams.clone().expire());
        Ok(layer)
    }

    fn set_up(
        link: &Rc<Link>,
        config: &LayerConfig,
        targets: &[&Description],
        static_layer: StaticLayer,
        memory: File,
    ) -> anyhow::Result<Self> {
        let mut scanner = Scanner::open().context("looking for listening sockets")?;
        let past = Past::read(&memory).context("reading the shared memory")?;
        let memory = Memory::of(memory, &config.skipped)?;
        let unix = UnixSockets::new(link.clone(), config, &memory)?;
        memory.set_concerns(unix.concerns())?;
        let (slots, leases) = Slots::new(past.slots, past.peers.iter().map(|(_, slot)| *slot));
        let place = Surroundings::find(config, &mut scanner)?;
        let base = Rc::new(Base::new(link.clone(), memory, slots, place));
        let resolver = Rc::new(Resolver::new(base.clone()));
        let (port, known) = (past.datagrams, &past.peers);
        let datagrams = Datagrams::open(base.clone(), resolver.clone(), port, known, leases)
            .context("opening a socket on loopback")?;
        let files = config.owns_etc.then(|| Files::of(&link.config, targets));
        if let Some(files) = &files {
            files.write(None)?;
        }
        Ok(Self {
            sink: Rc::new(Sink::open().context("opening a socket on loopback")?),
            ports: Ports::new(base.clone(), config, scanner, datagrams.clone(), &past.asked),
            datagrams,
            resolver,
            programs: Programs::new(static_layer),
            unix,
            hostname: config.hostname,
            files: files.map(RefCell::new),
            base,
        })
    }

    /// Follows targets that have moved, or that are new.
    pub(crate) fn change(
        &self,
        config: &ProxyConfig,
        targets: &[&Description],
    ) -> anyhow::Result<()> {
        self.base.become_like(config, targets);
        self.resolver.become_like(config, targets);
        let first = targets.first().map(|target| target.hostname.as_str());
        self.base.memory.set_hostname(first.filter(|_| self.hostname))?;
        if let Some(files) = &self.files {
            let now = Files::of(config, targets);
            now.write(Some(&files.borrow()))?;
            files.replace(now);
        }
        Ok(())
    }

    async fn reply(&self, mut call: Call) -> Result<(), CallError> {
        let answer = match call.request {
            Request::Map => self.base.memory.handed_out(),
            Request::Bind { transport, address, shared: _ } => {
                self.ports.bind(call.descriptor.take(), transport, canonical(address))
            }
            Request::Listen { fake } => self.ports.listens(fake),
            Request::Dial { remote } => {
                let remote = canonical(remote);
                let own = self.own_socket(remote);
                return dial::dial(&self.base, &self.sink, call, remote, own).await;
            }
            Request::Peer { remote } => self.datagrams.peer(canonical(remote)).await,
            Request::Resolve { name, v4, v6 } => named(self.resolver.resolve(name, v4, v6).await),
            Request::Query { name, class, kind, search } => {
                named(self.resolver.query(name, class, kind, search).await)
            }
            Request::Unix { kind, name } => {
                return self.unix.dial(&self.base.memory, call, kind, name).await;
            }
            Request::Exec => self.programs.rewritten(call.descriptor.take()).await,
        };
        call.answer(answer).await
    }

    /// Takes a client to the app, as if it had come itself.
    async fn bring(&self, client: Client) {
        let Some(app) = self.ports.taker(Transport::Tcp, client.server) else {
            return client.stream.refuse(Errno(libc::ECONNREFUSED));
        };
        let local = self.local(Transport::Tcp, client.server);
        let ends = Ends { remote: Some(client.address), local: Some(local) };
        match self.base.lease(ends) {
            Ok(lease) => incoming::carry(client, connect_from(lease.slot(), app)).await,
            Err(errno) => client.stream.refuse(errno),
        }
    }

    /// Where the app itself listens for what it wants to connect to.
    fn own_socket(&self, remote: SocketAddr) -> Option<SocketAddrV4> {
        let own = self.base.is_targets(remote.ip());
        own.then(|| self.ports.listener(Transport::Tcp, remote)).flatten()
    }

    /// An address of the target with the app's own port.
    fn local(&self, transport: Transport, server: SocketAddr) -> SocketAddr {
        let port = self.base.link.local_port(protocol(transport), server.port());
        SocketAddr::new(server.ip(), port)
    }
}

impl Answers for Layer {
    async fn answer(&self, call: Call) -> Result<(), CallError> {
        self.reply(call).await
    }
}

impl Reception for Layer {
    fn connection(self: Rc<Self>, client: Client) {
        let this = self.clone();
        self.base.link.tasks.spawn_local(async move { this.bring(client).await });
    }

    fn datagrams(self: Rc<Self>, client: Client) {
        match self.ports.taker(Transport::Udp, client.server) {
            Some(app) => self.datagrams.incoming(client, app),
            None => client.stream.refuse(Errno(libc::ECONNREFUSED)),
        }
    }
}

/// An IPv4 address is one, however it was written.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What a name's answer becomes; nothing: the process asks by itself.
fn named(answer: Option<Result<Vec<u8>, Cause>>) -> Answer {
    match answer {
        None => Answer::direct(),
        Some(Ok(payload)) => Answer::payload(payload),
        Some(Err(cause)) => Answer::unknown(cause),
    }
}
