//! One stream of a tunnel, as its owner holds it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use mirrord_protocol::frame::{Errno, Frame, MAX_DATA, StreamId};
use tokio::net::TcpStream;

use crate::handed::Handed;
use crate::outbox::Ticket;
use crate::relay::Answers;
use crate::state::{Broken, State};
use crate::tunnel::Tunnel;

/// One stream; dropping it before it is over resets it.
pub struct Stream {
    pub(crate) id: StreamId,
    pub(crate) state: Rc<RefCell<State>>,
    pub(crate) tunnel: Tunnel,
}

/// Why a stream's far end was not connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The far end's connect(2) failed with this error.
    #[error("connecting failed with error {}", .0.0)]
    Refused(Errno),
    /// The stream or its tunnel ended first.
    #[error("the stream ended before it was connected")]
    Reset,
}

/// Names what is no stream.
const NONE: StreamId = StreamId(0);

impl Stream {
    /// A connection that has come itself.
    pub(crate) fn of(handed: Handed, tunnel: &Tunnel) -> Self {
        let mut state = State::new();
        state.hand(handed);
        Self { id: NONE, state: Rc::new(RefCell::new(state)), tunnel: tunnel.clone() }
    }

    /// Its name in this tunnel.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Waits until the far end is connected.
    ///
    /// # Errors
    /// It can't be, or the tunnel ended.
    pub async fn connected(&self) -> Result<(), OpenError> {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            match state.broken {
                Some(Broken::Refused(errno)) => Poll::Ready(Err(OpenError::Refused(errno))),
                Some(Broken::Reset) => Poll::Ready(Err(OpenError::Reset)),
                None if state.opened => Poll::Ready(Ok(())),
                None => park(&mut state, cx),
            }
        })
        .await
    }

    /// Waits until the other end sends no more: it has finished, or the stream is broken.
    pub async fn ended(&self) {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.broken.is_some() || state.fin_received {
                return Poll::Ready(());
            }
            park(&mut state, cx)
        })
        .await;
    }

    /// Whether the other end, or the tunnel, has broken the stream off.
    pub fn is_broken(&self) -> bool {
        self.state.borrow().broken.is_some()
    }

    /// Waits until the other end, or the tunnel, has broken the stream off.
    pub async fn broken(&self) {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.broken.is_some() || state.orphaned {
                return Poll::Ready(());
            }
            park(&mut state, cx)
        })
        .await;
    }

    /// Tells the other end that this one is connected.
    pub fn accept(&self) {
        if !self.is_handed() {
            self.tunnel.send(&Frame::Opened(self.id));
        }
    }

    /// This is what the stream leads to, non-blocking: the connection itself goes to the other end if
    /// that takes it, and is relayed otherwise.
    pub async fn lead_to(self, socket: std::net::TcpStream) {
        if self.tunnel.hands() {
            self.state.borrow_mut().opened = true;
            self.tunnel.forget(self.id);
            self.tunnel.hand(&Frame::Handed(self.id), socket);
            self.state.borrow_mut().fail(Broken::Reset);
            return;
        }
        match TcpStream::from_std(socket) {
            Ok(socket) => {
                self.accept();
                self.relay(socket, Answers::Sent).await;
            }
            Err(error) => self.refuse(Errno::of(&error)),
        }
    }

    /// The far end itself, if it has come.
    pub(crate) fn take_handed(&self) -> Option<Handed> {
        self.state.borrow_mut().handed.take()
    }

    fn is_handed(&self) -> bool {
        self.state.borrow().handed.is_some()
    }

    /// Tells the other end why this one could not be connected.
    pub fn refuse(self, errno: Errno) {
        self.state.borrow_mut().fail(Broken::Reset);
        if self.is_handed() {
            return;
        }
        self.tunnel.send(&Frame::Refused(self.id, errno));
    }

    /// From now on, bytes that come are thrown away as they come.
    pub fn discard(&self) {
        let mut state = self.state.borrow_mut();
        state.discard = true;
        state.queue.clear();
        if let Some((consumed, limit)) = state.discarded(self.tunnel.rtt()) {
            self.tunnel.send_urgent(&Frame::Window { stream: self.id, consumed, limit });
        }
    }

    /// Sends bytes, as fast as the other end takes them.
    ///
    /// # Errors
    /// The stream or its tunnel has ended.
    pub async fn send(&self, mut bytes: Bytes) -> Result<(), OpenError> {
        let mut ticket = Ticket::default();
        while !bytes.is_empty() {
            let room = poll_fn(|cx| self.poll_send_room(cx, &mut ticket)).await?;
            let chunk = bytes.split_to(room.min(bytes.len()));
            let mut state = self.state.borrow_mut();
            let offset = state.sent;
            state.sent += chunk.len() as u64;
            self.tunnel.send(&Frame::Data(self.id, offset, chunk));
        }
        Ok(())
    }

    fn poll_send_room(
        &self,
        cx: &Context<'_>,
        ticket: &mut Ticket,
    ) -> Poll<Result<usize, OpenError>> {
        let mut state = self.state.borrow_mut();
        if state.broken.is_some() || state.orphaned {
            return Poll::Ready(Err(OpenError::Reset));
        }
        ready!(self.tunnel.0.outbox.poll_room(cx, ticket));
        match state.send_room().min(MAX_DATA) {
            0 => park(&mut state, cx),
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Half-close: nothing more is sent.
    pub fn finish(&self) {
        let mut state = self.state.borrow_mut();
        if !state.fin_sent && state.broken.is_none() {
            state.fin_sent = true;
            self.tunnel.send(&Frame::Fin(self.id, state.sent));
        }
    }

    /// Sends a datagram, or drops it when the tunnel has no room, as networks do. Says which.
    pub fn send_datagram(&self, payload: &[u8]) -> bool {
        let fits = payload.len() <= MAX_DATA && self.tunnel.0.outbox.takes_datagram();
        if fits {
            self.tunnel.send(&Frame::Datagram(self.id, Bytes::copy_from_slice(payload)));
        }
        fits
    }

    /// What is done with each datagram that comes.
    pub fn on_datagram(&self, act: impl Fn(Bytes) + 'static) {
        self.state.borrow_mut().on_datagram = Some(Box::new(act));
    }

    /// What is done when the other end says why datagrams do not arrive; it ends the stream.
    pub fn on_refusal(&self, act: impl FnOnce(Errno) + 'static) {
        self.state.borrow_mut().on_refusal = Some(Box::new(act));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_handed() {
            return;
        }
        self.tunnel.forget(self.id);
        if !self.state.borrow().is_over() {
            self.tunnel.send(&Frame::Reset(self.id));
        }
    }
}

fn park<T>(state: &mut State, cx: &Context<'_>) -> Poll<T> {
    state.waker = Some(cx.waker().clone());
    Poll::Pending
}
