//! Unix sockets of the target: what the app connects to is reached through the tunnel, then the
//! app's socket connects to one of ours, made for it alone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use mirrord_protocol::control::LayerConfig;
use mirrord_protocol::frame::{Errno, Open};
use mirrord_protocol::layer::{Request, page, unix_stand_in};
use mirrord_protocol::unix::{UnixKind, UnixName};
use mirrord_tunnel::{OpenError, Stream};
use nix::libc;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{UnixCredentials, getsockopt};
use regex::RegexSet;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::debug;

use super::Provision;
use super::base::written;
use super::call::{Answer, Call, CallError};
use super::heritage::Heritage;
use super::memory::Memory;
use super::server::{Answers, Server};
use crate::link::Link;

/// What waits for a tunnel waits so long.
const GRACE: Duration = Duration::from_secs(30);
/// The app has so long from hearing where to connect to doing so.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of these only one is let in.
const BACKLOG: i32 = 16;

/// The unix sockets of a session.
pub(super) struct UnixSockets {
    link: Rc<Link>,
    /// The name of the socket that the layer asks on.
    own: String,
    wanted: RegexSet,
    known: RefCell<HashMap<UnixName, u32>>,
    serial: Cell<u32>,
}

/// Where an app's socket gets to one of the target.
struct StandIn {
    number: u32,
    listener: UnixListener,
}

impl UnixSockets {
    /// Those that the configuration names.
    pub(super) fn new(
        link: Rc<Link>,
        config: &LayerConfig,
        memory: &Memory,
    ) -> anyhow::Result<Self> {
        let wanted = RegexSet::new(&config.unix_streams).context("reading unix_streams")?;
        let known = match wanted.is_empty() {
            true => HashMap::new(),
            false => memory.unix_names().context("reading the shared memory")?,
        };
        let own = config.socket.clone();
        let (known, serial) = (RefCell::new(known), Cell::new(0));
        Ok(Self { link, own, wanted, known, serial })
    }

    /// What the layer is to ask about.
    pub(super) fn concerns(&self) -> u8 {
        if self.wanted.is_empty() { 0 } else { page::CONCERNS_UNIX }
    }

    /// Answers a process that wants to be connected; goes on when the process has its answer.
    pub(super) async fn dial(
        &self,
        memory: &Memory,
        call: Call,
        kind: UnixKind,
        name: UnixName,
    ) -> Result<(), CallError> {
        if !self.wants(&name) {
            return call.answer(Answer::direct()).await;
        }
        let asker = call.asker().map_err(io::Error::from)?;
        let reached = match self.reach(kind, name).await {
            Ok(stream) => self.stand_in(memory, kind, name).map(|stand_in| (stream, stand_in)),
            Err(errno) => Err(errno),
        };
        let (stream, StandIn { number, listener }) = match reached {
            Ok(reached) => reached,
            Err(errno) => {
                debug!(?name, errno = errno.0, "connecting failed");
                return call.answer(Answer::refused(errno.0)).await;
            }
        };
        self.link.tasks.spawn_local(async move {
            match tokio::time::timeout(PATIENCE, accept(listener, asker)).await {
                Ok(Ok(socket)) => stream.relay_unix(kind, socket).await,
                Ok(Err(error)) => debug!(?name, %error, "the app could not be let in"),
                Err(_) => debug!(?name, "the app has given up connecting"),
            }
        });
        call.answer(Answer::done(number)).await
    }

    /// An abstract name is matched with and without an `@` before it.
    fn wants(&self, name: &UnixName) -> bool {
        let text = String::from_utf8_lossy(name.abstract_name().unwrap_or(name.as_bytes()));
        let marked = || name.abstract_name().is_some() && self.wanted.is_match(&format!("@{text}"));
        self.wanted.is_match(&text) || marked()
    }

    async fn reach(&self, kind: UnixKind, name: UnixName) -> Result<Stream, Errno> {
        // As if nobody listened.
        let absent = Errno(libc::ECONNREFUSED);
        let tunnel = tokio::time::timeout(GRACE, self.link.tunnel()).await;
        let tunnel = tunnel.ok().flatten().ok_or(absent)?;
        let stream = tunnel.open(Open::ConnectUnix(kind, name));
        match stream.connected().await {
            Ok(()) => Ok(stream),
            Err(OpenError::Refused(errno)) => Err(errno),
            Err(OpenError::Reset) => Err(absent),
        }
    }

    fn stand_in(&self, memory: &Memory, kind: UnixKind, name: UnixName) -> Result<StandIn, Errno> {
        let entry = self.entry(memory, name)?;
        loop {
            let serial = self.serial.get().wrapping_add(1);
            self.serial.set(serial);
            let number = serial << page::UNIX_BITS | entry;
            match listen(kind, &self.own, number) {
                Ok(listener) => return Ok(StandIn { number, listener }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(Errno::of(&error)),
            }
        }
    }

    /// The number of a name, which is written down for getpeername(2).
    fn entry(&self, memory: &Memory, name: UnixName) -> Result<u32, Errno> {
        let mut known = self.known.borrow_mut();
        if let Some(entry) = known.get(&name) {
            return Ok(*entry);
        }
        let entry = u32::try_from(known.len()).ok().filter(|next| *next < page::UNIX_NAMES);
        let entry = entry.ok_or(Errno(libc::EADDRNOTAVAIL))?;
        written(memory.set_unix_name(entry, &name))?;
        known.insert(name, entry);
        Ok(entry)
    }
}

fn listen(kind: UnixKind, own: &str, number: u32) -> io::Result<UnixListener> {
    let kind = match kind {
        UnixKind::Stream => Type::STREAM,
        UnixKind::Packets => Type::SEQPACKET,
    };
    let socket = Socket::new(Domain::UNIX, kind.nonblocking().cloexec(), None)?;
    let suffix = unix_stand_in(number);
    let name = format!("\0{own}{}", String::from_utf8_lossy(&suffix));
    socket.bind(&SockAddr::unix(name)?)?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(StdUnixListener::from(OwnedFd::from(socket)))
}

/// Anybody can connect to such a socket: who has asked is let in.
async fn accept(listener: UnixListener, asker: UnixCredentials) -> io::Result<UnixStream> {
    loop {
        let (socket, _) = listener.accept().await?;
        if getsockopt(&socket, PeerCredentials)? == asker {
            return Ok(socket);
        }
    }
}

/// What serves the app where the kernel redirects everything else.
pub(crate) struct UnixAlone {
    memory: Memory,
    sockets: UnixSockets,
}

impl UnixAlone {
    /// Answers from now on, in `tasks`.
    pub(crate) fn take(
        link: &Rc<Link>,
        config: &LayerConfig,
        provision: &Provision,
        tasks: &mut JoinSet<anyhow::Error>,
    ) -> anyhow::Result<()> {
        let heritage = Heritage::of_worker(provision, config);
        let Heritage { memory, listener } =
            heritage.context("listening for the app's processes")?;
        let memory = Memory::of(memory, &config.skipped)?;
        let sockets = UnixSockets::new(link.clone(), config, &memory)?;
        memory.set_concerns(sockets.concerns() | page::CONCERNS_ONLY_UNIX)?;
        let server = Server::new(listener, config).context("listening for the app's processes")?;
        tasks.spawn_local(server.run(Rc::new(Self { memory, sockets })));
        Ok(())
    }
}

impl Answers for UnixAlone {
    async fn answer(&self, call: Call) -> Result<(), CallError> {
        match call.request {
            Request::Map => call.answer(self.memory.handed_out()).await,
            Request::Unix { kind, name } => self.sockets.dial(&self.memory, call, kind, name).await,
            _ => call.answer(Answer::direct()).await,
        }
    }
}
