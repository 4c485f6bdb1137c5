//! The tunnel itself: frames in and out of one WebSocket, and the table of its streams.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use mirrord_protocol::frame::{DecodeError, Errno, Frame, Open, StreamId, TunnelId};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use crate::arena::Arena;
use crate::awake;
use crate::descriptors::{AT_ONCE, Descriptors};
use crate::greeting::Greeting;
use crate::handshake::Socket;
use crate::kept::Item;
use crate::outbox::{Next, Outbox};
use crate::pipe::Way;
use crate::relay::{Answers, Outcome};
use crate::state::{Broken, State, Violation};
use crate::stream::Stream;

/// How often an end says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A peer that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// What has come is acknowledged once it is so many bytes,
const ACKNOWLEDGED_BYTES: usize = 256 << 10;
/// or so many frames; with the next heartbeat at the latest.
const ACKNOWLEDGED_FRAMES: u64 = 1024;
/// The writer flushes after so many bytes, so that streams get room again.
const BATCH: usize = 256 << 10;
/// So many streams may be open when one more is asked for.
const MAX_STREAMS: usize = 1 << 16;
/// Names what is no stream.
const NO_STREAM: StreamId = StreamId(0);
/// errno(3): too many open files.
const EMFILE: i32 = 24;

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

    fn free_id(&self) -> StreamId {
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

    /// Carries frames until the pipe ends. If that [is a cut](TunnelError::is_cut), the streams wait
    /// for the next pipe, until [`Tunnel::end`]; otherwise they are broken.
    pub async fn drive<P>(&self, socket: Socket<P>, events: &dyn Events) -> TunnelError
    where
        P: Way,
    {
        self.0.beside.replace(socket.get_ref().descriptors().cloned());
        let (sink, stream) = socket.split();
        self.0.heard.set(Instant::now());
        let error = tokio::select! {
            error = self.read(stream, events) => error,
            error = self.write(sink) => error,
            error = self.beat() => error,
        };
        let over = self.0.outbox.is_finished();
        if over || !error.is_cut() {
            self.end();
        }
        if over { TunnelError::Closed } else { error }
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
        let streams = std::mem::take(&mut *self.0.streams.borrow_mut());
        for state in streams.into_values() {
            state.borrow_mut().orphan();
        }
    }

    async fn read<P>(&self, mut stream: SplitStream<Socket<P>>, events: &dyn Events) -> TunnelError
    where
        P: Way,
    {
        loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return broken(error),
                None => return TunnelError::Cut,
            };
            self.0.heard.set(Instant::now());
            let result = match message {
                Message::Binary(bytes) => self.accept(bytes, events),
                Message::Close(_) => Err(TunnelError::Closed),
                Message::Ping(_) | Message::Pong(_) => Ok(()),
                Message::Text(_) | Message::Frame(_) => Err(TunnelError::Unexpected),
            };
            if let Err(error) = result {
                return error;
            }
        }
    }

    async fn write<P>(&self, mut sink: SplitSink<Socket<P>, Message>) -> TunnelError
    where
        P: Way,
    {
        loop {
            poll_fn(|cx| self.0.outbox.poll_ready(cx)).await;
            match self.write_batch(&mut sink).await {
                Ok(false) => self.0.outbox.flushed(),
                // The other end then closes the pipe.
                Ok(true) => std::future::pending().await,
                Err(error) => return broken(error),
            }
        }
    }

    /// Writes what there is; says whether it was the last.
    async fn write_batch<P>(
        &self,
        sink: &mut SplitSink<Socket<P>, Message>,
    ) -> Result<bool, WebSocketError>
    where
        P: Way,
    {
        let (mut batch, mut descriptors, mut last) = (0, 0, false);
        while batch < BATCH && descriptors < AT_ONCE && !last {
            let message = match self.0.outbox.pop() {
                Next::Frame(Item { bytes, descriptor }) => {
                    if let Some(descriptor) = descriptor {
                        descriptors += 1;
                        self.0.beside.borrow().iter().for_each(|beside| {
                            beside.queue(descriptor.clone());
                        });
                    }
                    Message::Binary(bytes)
                }
                Next::Nothing => break,
                Next::Close => Message::Close(None),
            };
            batch += message.len();
            last = message.is_close();
            sink.feed(message).await?;
        }
        sink.flush().await?;
        Ok(last)
    }

    async fn beat(&self) -> TunnelError {
        loop {
            let beat = Instant::now();
            self.send_passing(&Frame::Ping(self.now()));
            self.acknowledge();
            tokio::time::sleep(HEARTBEAT).await;
            // After a pause of this very process, what came meanwhile is still to be read.
            let paused = beat.elapsed() > 2 * HEARTBEAT;
            if !paused && self.0.heard.get().elapsed() > SILENCE {
                return TunnelError::Silent;
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn send_urgent(&self, frame: &Frame) {
        self.0.outbox.push_urgent(frame.encode());
    }

    fn send_passing(&self, frame: &Frame) {
        self.0.outbox.push_passing(frame.encode());
    }

    fn accept(&self, bytes: bytes::Bytes, events: &dyn Events) -> Result<(), TunnelError> {
        let len = bytes.len();
        awake::passed(len);
        let frame = Frame::decode(bytes)?;
        if frame.is_numbered() {
            let (received, len) = (self.received() + 1, self.0.unacknowledged.get() + len);
            self.0.received.set(received);
            self.0.unacknowledged.set(len);
            let frames = received - self.0.acknowledged.get();
            // The other end keeps the descriptor as well until it hears, and with it the connection.
            let now = frame.has_descriptor();
            if now || len >= ACKNOWLEDGED_BYTES || frames >= ACKNOWLEDGED_FRAMES {
                self.acknowledge();
            }
        }
        self.dispatch(frame, events)
    }

    /// The connection that came beside a frame.
    fn handed(&self) -> Result<TcpStream, Violation> {
        let descriptor = self.0.beside.borrow().as_ref().and_then(|beside| beside.take());
        let socket = descriptor.ok_or(Violation::Descriptor)?;
        TcpStream::from_std(socket.into()).map_err(|_| Violation::Descriptor)
    }

    /// Whether the other end takes connections themselves, now.
    pub(crate) fn hands(&self) -> bool {
        self.0.hands.get() && self.0.beside.borrow().is_some()
    }

    /// Takes a client of ours to the other end: its connection itself if that can be, or a stream
    /// that is relayed from the task that this returns.
    pub fn bring(
        &self,
        open: Open,
        socket: TcpStream,
    ) -> Option<impl Future<Output = Outcome> + use<>> {
        if self.hands() {
            // What can't be taken out of our reactor is out of descriptors, and closed.
            if let Ok(socket) = socket.into_std() {
                self.0.outbox.push_with(Frame::Brought(open).encode(), socket.into());
            }
            return None;
        }
        Some(self.open(open).relay(socket, Answers::Sent))
    }

    fn acknowledge(&self) {
        let received = self.received();
        if self.0.acknowledged.replace(received) != received {
            self.0.unacknowledged.set(0);
            self.send_passing(&Frame::Received(received));
        }
    }

    fn dispatch(&self, frame: Frame, events: &dyn Events) -> Result<(), TunnelError> {
        match frame {
            Frame::Data(id, offset, bytes) => self.receive(id, offset, bytes)?,
            Frame::Window { stream, consumed, limit } => {
                self.with(stream, |state| state.extend(consumed, limit));
            }
            Frame::Datagram(id, bytes) => self.datagram(id, bytes),
            Frame::Open(id, open) => {
                let stream = self.admit(id)?;
                // The peer counts its own and may not know all of ours yet.
                match self.streams() > 2 * MAX_STREAMS {
                    true => stream.refuse(Errno(EMFILE)),
                    false => events.opened(stream, open),
                }
            }
            Frame::Opened(id) => self.with(id, |state| {
                state.opened = true;
                state.wake();
            }),
            Frame::Handed(id) => {
                let socket = self.handed()?;
                if let Some(state) = self.0.streams.borrow_mut().remove(&id) {
                    state.borrow_mut().hand(socket);
                }
            }
            Frame::Brought(open) => {
                let mut state = State::new();
                state.hand(self.handed()?);
                let state = Rc::new(RefCell::new(state));
                events.opened(Stream { id: NO_STREAM, state, tunnel: self.clone() }, open);
            }
            Frame::Refused(id, errno) => self.break_stream(id, Broken::Refused(errno)),
            Frame::Reset(id) => self.break_stream(id, Broken::Reset),
            Frame::Fin(id, offset) => {
                if let Some(state) = self.find(id) {
                    state.borrow_mut().receive_fin(offset)?;
                }
            }
            Frame::Received(number) => self.0.outbox.acknowledged(number)?,
            Frame::Ping(number) => self.send_passing(&Frame::Pong(number)),
            Frame::Pong(number) => {
                self.0.rtt.set(Duration::from_micros(self.now().saturating_sub(number)));
            }
            other => events.message(other)?,
        }
        Ok(())
    }

    fn receive(&self, id: StreamId, offset: u64, bytes: bytes::Bytes) -> Result<(), Violation> {
        // A stream that is over here may still be written to by a peer that does not know yet.
        let Some(state) = self.find(id) else { return Ok(()) };
        let mut state = state.borrow_mut();
        state.receive(offset, bytes)?;
        if state.discard
            && let Some((consumed, limit)) = state.discarded(self.rtt())
        {
            self.send_urgent(&Frame::Window { stream: id, consumed, limit });
        }
        Ok(())
    }

    fn datagram(&self, id: StreamId, bytes: bytes::Bytes) {
        let Some(state) = self.find(id) else { return };
        let handler = state.borrow_mut().on_datagram.take();
        if let Some(handler) = handler {
            handler(bytes);
            state.borrow_mut().on_datagram.get_or_insert(handler);
        }
    }

    fn break_stream(&self, id: StreamId, how: Broken) {
        let Some(state) = self.0.streams.borrow_mut().remove(&id) else { return };
        state.borrow_mut().fail(how);
        let handler = state.borrow_mut().on_refusal.take();
        if let (Broken::Refused(errno), Some(handler)) = (how, handler) {
            handler(errno);
        }
    }

    fn with(&self, id: StreamId, act: impl FnOnce(&mut State)) {
        if let Some(state) = self.find(id) {
            act(&mut state.borrow_mut());
        }
    }

    fn find(&self, id: StreamId) -> Option<Rc<RefCell<State>>> {
        self.0.streams.borrow().get(&id).cloned()
    }

    /// A stream that the peer opens: its id must be one of the peer's and free.
    fn admit(&self, id: StreamId) -> Result<Stream, Violation> {
        let peers = if self.0.role == Role::Proxy { 0 } else { 1 };
        let free = !self.0.streams.borrow().contains_key(&id);
        if id.0 % 2 != peers || !free {
            return Err(Violation::Id(id.0));
        }
        Ok(self.enter(id))
    }

    fn enter(&self, id: StreamId) -> Stream {
        let state = Rc::new(RefCell::new(State::new()));
        self.0.streams.borrow_mut().insert(id, state.clone());
        Stream { id, state, tunnel: self.clone() }
    }

    pub(crate) fn forget(&self, id: StreamId) {
        self.0.streams.borrow_mut().remove(&id);
    }
}

pub(crate) fn broken(error: WebSocketError) -> TunnelError {
    match error {
        WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed => TunnelError::Closed,
        WebSocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => TunnelError::Cut,
        error @ WebSocketError::Io(_) => TunnelError::Pipe(Box::new(error)),
        other => TunnelError::Foreign(Box::new(other)),
    }
}
