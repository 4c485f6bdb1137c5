//! The app's connections: each is begun at the agent, and the app's `connect` ends as that one does.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mirrord_netns::calls::{Call, Heard};
use mirrord_protocol::frame::Errno;
use mirrord_tunnel::datagrams::Readiness;
use mirrord_tunnel::{Answers, OpenError, Stream, Tunnel, or_pause};
use nix::libc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::echo::Echoes;
use crate::link::Link;
use crate::place::Netns;

/// So many connections may wait to be answered; further ones are not heard until the app's kernel
/// sends their SYN again.
const MOST: usize = 8192;
/// So much longer than the time since the first SYN another one may take.
const LATE: Duration = Duration::from_secs(2);
/// How long the app may take to see that it is connected: its SYN, sent once more, can be lost where
/// the listener's queue is full, and comes again after 1 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// The app's end, and where it connects to.
type Key = (SocketAddr, SocketAddr);

/// Connections of the app that are not accepted yet.
pub(crate) struct Outgoing {
    link: Rc<Link>,
    place: Rc<Netns>,
    waiting: RefCell<HashMap<Key, Waiting>>,
    echoes: Echoes,
}

struct Waiting {
    sequence: u32,
    /// When its SYN was heard first, and last.
    first: Instant,
    last: Instant,
    /// Who carries it wants it once it is accepted.
    carrier: oneshot::Sender<TcpStream>,
}

impl Outgoing {
    pub(crate) fn new(link: Rc<Link>, place: Rc<Netns>) -> Rc<Self> {
        let echoes = Echoes::new(link.clone(), place.clone());
        Rc::new(Self { link, place, waiting: RefCell::default(), echoes })
    }

    /// Hears the app's connections begin, as long as the process lives.
    pub(crate) async fn hear(self: Rc<Self>, readiness: Readiness) -> anyhow::Error {
        loop {
            let heard = readiness.take(|| self.place.next_call()).await;
            match or_pause(heard, "hearing of a connection of the app").await {
                Some(Heard::Call(call)) => self.begin(call),
                Some(Heard::Echo(echo)) => self.echoes.ask(echo),
                None => {}
            }
        }
    }

    fn begin(self: &Rc<Self>, call: Call) {
        let now = Instant::now();
        if self.is_waiting(&call) {
            let mut waiting = self.waiting.borrow_mut();
            waiting.entry(key(&call)).and_modify(|waiting| waiting.last = now);
            return;
        }
        if self.waiting.borrow().len() >= MOST {
            self.waiting.borrow_mut().retain(|_, waiting| !waiting.is_given_up());
        }
        if self.waiting.borrow().len() >= MOST {
            return;
        }
        let (carrier, accepted) = oneshot::channel();
        let waiting = Waiting { sequence: call.sequence(), first: now, last: now, carrier };
        self.waiting.borrow_mut().insert(key(&call), waiting);
        self.link.tasks.spawn_local(self.clone().carry(call, accepted));
    }

    /// Takes what the kernel has established, as long as the process lives.
    pub(crate) async fn accept(self: Rc<Self>, listener: TcpListener) -> anyhow::Error {
        loop {
            let accepted = listener.accept().await;
            let accepted = or_pause(accepted, "accepting a connection of the app").await;
            let Some((socket, app)) = accepted else { continue };
            let to = socket.local_addr();
            let waiting = to.map(|to| self.waiting.borrow_mut().remove(&(app, to)));
            match waiting {
                Ok(Some(waiting)) => drop(waiting.carrier.send(socket)),
                // Whom nobody carries any more is not left in the belief that it is connected.
                Ok(None) | Err(_) => drop(socket.set_zero_linger()),
            }
        }
    }

    async fn carry(self: Rc<Self>, call: Call, accepted: oneshot::Receiver<TcpStream>) {
        let reached = self.reach(call.to()).await;
        if !self.is_waiting(&call) {
            return;
        }
        let far = match reached {
            Ok(_) if self.is_given_up(&call) => return self.forget(&call),
            Ok(far) => far,
            Err(errno) => return self.fail(&call, errno),
        };
        let accepted = match self.place.admit(&call) {
            Ok(()) => timeout(PATIENCE, accepted).await.ok().and_then(Result::ok),
            Err(error) => {
                warn!(%error, "a connection of the app was lost");
                None
            }
        };
        self.forget(&call);
        self.place.settle(&call);
        if let Some(socket) = accepted {
            far.relay(socket, Answers::Sent).await;
        }
    }

    /// Connects the far end; while no tunnel stands it waits, and so does the app.
    async fn reach(&self, to: SocketAddr) -> Result<Stream, Errno> {
        // The target's own addresses are this namespace's as well, and lead nowhere else.
        reach(self.link.tunnel().await, self.place.names().remote(to), false).await
    }

    fn fail(&self, call: &Call, errno: Errno) {
        debug!(to = %call.to(), errno = errno.0, "connecting failed");
        self.forget(call);
        if let Err(error) = self.place.sender.fail(call, errno.0) {
            warn!(%error, "the app does not hear why it is not connected");
        }
    }

    /// Whether nobody else has begun to connect from the same port meanwhile.
    fn is_waiting(&self, call: &Call) -> bool {
        let waiting = self.waiting.borrow();
        let known = waiting.get(&key(call));
        known.is_some_and(|known| known.sequence == call.sequence())
    }

    fn is_given_up(&self, call: &Call) -> bool {
        self.waiting.borrow().get(&key(call)).is_none_or(Waiting::is_given_up)
    }

    fn forget(&self, call: &Call) {
        if self.is_waiting(call) {
            self.waiting.borrow_mut().remove(&key(call));
        }
    }
}

/// Connects the far end, which may be the target itself: how one gets there knows the agent, since it
/// may take what comes to the target.
pub(crate) async fn reach(
    tunnel: Option<Tunnel>,
    to: SocketAddr,
    is_targets: bool,
) -> Result<Stream, Errno> {
    let unreachable = Errno(libc::ENETUNREACH);
    let tunnel = tunnel.ok_or(unreachable)?;
    let far = match is_targets || to.ip().is_loopback() {
        true => tunnel.connect_there(to).await,
        false => tunnel.connect(to).await,
    };
    far.map_err(|error| match error {
        OpenError::Refused(errno) => errno,
        OpenError::Reset => unreachable,
    })
}

impl Waiting {
    /// Whether the app's kernel has stopped sending the SYN: the pause before each is at most as long
    /// as all before it and a second more (RFC 6298).
    fn is_given_up(&self) -> bool {
        self.last.elapsed() > self.last.duration_since(self.first) + LATE
    }
}

fn key(call: &Call) -> Key {
    (call.app(), call.to())
}
