//! The tunnel itself, and the table of its streams.

mod drive;
mod frames;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mirrord_protocol::frame::{DecodeError, Frame, Open, StreamId, TunnelId};
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error as WebSocketError;

use crate::arena::Arena;
use crate::descriptors::Descriptors;
use crate::greeting::Greeting;
use crate::handed;
use crate::outbox::Outbox;
use crate::relay::{Answers, Outcome};
use crate::spares::Spares;
use crate::state::{Broken, State, Violation};
use crate::stream::Stream;

use drive::SILENCE;
pub(crate) use drive::broken;

/// So many streams may be open when one more is asked for.
const MAX_STREAMS: usize = 1 << 16;

/// Which end this is; it decides which stream ids are ours to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Opens odd streams.
    Proxy,
    /// Opens even streams.
    Agent,
}

/// What the other end asks of this one.
pub trait Events {
    /// The other end opened a stream.
    fn opened(&self, stream: Stream, open: Open);

    /// A frame that belongs to no stream.
    ///
    /// # Errors
    /// The frame makes no sense here: the tunnel ends.
    fn message(&self, frame: Frame) -> Result<(), TunnelError>;
}

/// Why a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The other end has nothing more to say.
    #[error("the other end closed the tunnel")]
    Closed,
    /// The pipe ended, and nobody said that the tunnel does.
    #[error("the tunnel's pipe ended")]
    Cut,
    /// The pipe broke.
    #[error("the tunnel's pipe broke")]
    Pipe(#[source] Box<WebSocketError>),
    /// The other end is another one than before: the streams are lost.
    #[error("the other end does not know the tunnel any more")]
    Forgotten,
    /// The other end hangs, or a cut was not reported.
    #[error("nothing came through the tunnel for {} s", SILENCE.as_secs())]
    Silent,
    /// What came is no WebSocket message.
    #[error("the other end does not speak WebSocket")]
    Foreign(#[source] Box<WebSocketError>),
    /// What came is no frame.
    #[error("the other end sent what is no message")]
    Decode(#[from] DecodeError),
    /// The other end broke the rules of streams.
    #[error("the other end broke the protocol")]
    Violation(#[from] Violation),
    /// A frame came that this end never gets.
    #[error("the other end sent a message that is not for this end")]
    Unexpected,
}

impl TunnelError {
    /// Whether the pipe alone came to its end: another one can carry on.
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Cut | Self::Pipe(_) | Self::Silent)
    }
}

/// One tunnel; clones are the same tunnel.
#[derive(Clone)]
pub struct Tunnel(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    role: Role,
    id: TunnelId,
    /// Whether it has had a pipe.
    begun: Cell<bool>,
    /// So many numbered frames have come.
    received: Cell<u64>,
    /// So many of them the other end knows to have come,
    acknowledged: Cell<u64>,
    /// and so many bytes it does not know of.
    unacknowledged: Cell<usize>,
    next: Cell<u32>,
    streams: RefCell<HashMap<StreamId, Rc<RefCell<State>>>>,
    pub(crate) outbox: Outbox,
    /// What goes beside frames, where the pipe carries that.
    beside: RefCell<Option<Rc<Descriptors>>>,
    /// Whether the other end takes it.
    hands: Cell<bool>,
    /// Whether it wants more of it.
    wanted: Cell<bool>,
    /// So many connections may be handed over,
    pub(crate) most: u64,
    /// so many were that are still carried,
    pub(crate) handed: Cell<u64>,
    /// and whether the other end was told that they are too many.
    pub(crate) full: Cell<bool>,
    /// Sockets that are not connected yet.
    pub(crate) spares: Spares,
    /// Connections without a stream whose bytes are on their way to the far end.
    pub(crate) bridged: Cell<usize>,
    pub(crate) arena: RefCell<Arena>,
    rtt: Cell<Duration>,
    born: Instant,
    heard: Cell<Instant>,
    ended: Cell<bool>,
}

impl Tunnel {
    /// A proxy's tunnel without a pipe yet; what is sent waits for [`Tunnel::drive`].
    pub fn of_proxy() -> Self {
        let born = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = TunnelId(u64::try_from(born.as_nanos()).unwrap_or(u64::MAX));
        Self::make(Role::Proxy, id)
    }

    /// An agent's end of the tunnel that a proxy asked for.
    pub fn of(greeting: &Greeting) -> Self {
        let tunnel = Self::make(Role::Agent, greeting.tunnel);
        tunnel.0.hands.set(greeting.descriptors);
        tunnel
    }

    fn make(role: Role, id: TunnelId) -> Self {
        let now = Instant::now();
        Self(Rc::new(Inner {
            role,
            id,
            begun: Cell::new(false),
            received: Cell::new(0),
            acknowledged: Cell::new(0),
            unacknowledged: Cell::new(0),
            next: Cell::new(if role == Role::Proxy { 1 } else { 2 }),
            streams: RefCell::default(),
            outbox: Outbox::default(),
            beside: RefCell::default(),
            hands: Cell::new(false),
            wanted: Cell::new(true),
            most: handed::most(),
            handed: Cell::new(0),
            full: Cell::new(false),
            spares: Spares::default(),
            bridged: Cell::new(0),
            arena: RefCell::default(),
            rtt: Cell::new(Duration::from_millis(1)),
            born: now,
            heard: Cell::new(now),
            ended: Cell::new(false),
        }))
    }

    /// Its name among the tunnels of its session.
    pub fn id(&self) -> TunnelId {
        self.0.id
    }

    /// How many numbered frames have come.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.get()
    }

    /// Notes that there is a pipe; says whether there was one before.
    pub(crate) fn begin(&self) -> bool {
        self.0.begun.replace(true)
    }

    /// Whether the other end takes sockets beside frames of the present pipe.
    pub(crate) fn set_hands(&self, takes: bool) {
        self.0.hands.set(takes);
    }

    pub(crate) fn has_descriptors(&self) -> bool {
        self.0.outbox.has_descriptors()
    }

    /// Another pipe goes on from here: the other end has so many frames.
    pub(crate) fn rewind(&self, received: u64) -> Result<(), Violation> {
        self.0.acknowledged.set(self.received());
        self.0.unacknowledged.set(0);
        self.0.outbox.rewind(received)
    }

    /// Opens a stream. On a tunnel that has ended, or is full, it is broken from the start.
    pub fn open(&self, open: Open) -> Stream {
        let id = self.free_id();
        if self.0.ended.get() || self.streams() >= MAX_STREAMS {
            let mut state = State::new();
            state.fail(Broken::Reset);
            return Stream { id, state: Rc::new(RefCell::new(state)), tunnel: self.clone() };
        }
        let stream = self.enter(id);
        self.send(&Frame::Open(id, open));
        stream
    }

    pub(crate) fn free_id(&self) -> StreamId {
        loop {
            let id = StreamId(self.0.next.get());
            self.0.next.set(id.0.wrapping_add(2));
            if !self.0.streams.borrow().contains_key(&id) {
                return id;
            }
        }
    }

    /// Sends a frame behind all that was sent before.
    pub fn send(&self, frame: &Frame) {
        self.0.outbox.push(frame.encode());
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.0.streams.borrow().len()
    }

    /// Whether all that was sent to its end has been handed on by the other side.
    pub fn is_delivered(&self) -> bool {
        let streams = self.0.streams.borrow();
        let empty = self.0.outbox.is_empty() && self.0.bridged.get() == 0;
        empty && streams.values().all(|state| state.borrow().is_delivered())
    }

    /// The round trip time of the last heartbeat.
    pub fn rtt(&self) -> Duration {
        self.0.rtt.get()
    }

    /// Lets what waits leave, then tells the other end that nothing more comes: it closes the pipe,
    /// and waits for no other one.
    pub fn finish(&self) {
        self.0.outbox.finish();
    }

    /// Waits until it has ended.
    pub async fn over(&self) {
        poll_fn(|cx| self.0.outbox.poll_closed(cx)).await;
    }

    /// Gives up: every stream is broken, but for what the other end had sent to its end.
    pub fn end(&self) {
        self.0.ended.set(true);
        self.0.outbox.close();
        self.0.beside.take();
        self.0.spares.clear();
        let streams = std::mem::take(&mut *self.0.streams.borrow_mut());
        for state in streams.into_values() {
            state.borrow_mut().orphan();
        }
    }

    pub(crate) fn send_urgent(&self, frame: &Frame) {
        self.0.outbox.push_urgent(frame.encode());
    }

    fn send_passing(&self, frame: &Frame) {
        self.0.outbox.push_passing(frame.encode());
    }

    /// Whether the other end takes connections themselves, now.
    pub(crate) fn hands(&self) -> bool {
        self.0.hands.get() && self.0.wanted.get() && self.0.beside.borrow().is_some()
    }

    /// Takes a client of ours, non-blocking, to the other end: its connection itself if that can be,
    /// or a stream that is relayed from the task that this returns.
    ///
    /// # Errors
    /// The kernel has no memory left to watch it.
    pub fn bring(
        &self,
        open: Open,
        socket: std::net::TcpStream,
    ) -> io::Result<Option<impl Future<Output = Outcome> + use<>>> {
        if self.hands() {
            self.hand(&Frame::Brought(open), socket);
            return Ok(None);
        }
        let socket = TcpStream::from_std(socket)?;
        Ok(Some(self.open(open).relay(socket, Answers::Sent)))
    }

    /// Sends a connection beside its frame. Until somebody carries it, whoever drops it breaks it off.
    pub(crate) fn hand(&self, frame: &Frame, socket: std::net::TcpStream) {
        let _ = socket.set_nodelay(true);
        let _ = set_socket_linger(&socket, Some(Duration::ZERO));
        self.0.outbox.push_with(frame.encode(), socket.into());
    }

    fn find(&self, id: StreamId) -> Option<Rc<RefCell<State>>> {
        self.0.streams.borrow().get(&id).cloned()
    }

    pub(crate) fn enter(&self, id: StreamId) -> Stream {
        let state = Rc::new(RefCell::new(State::new()));
        self.0.streams.borrow_mut().insert(id, state.clone());
        Stream { id, state, tunnel: self.clone() }
    }

    pub(crate) fn forget(&self, id: StreamId) {
        self.0.streams.borrow_mut().remove(&id);
    }
}
