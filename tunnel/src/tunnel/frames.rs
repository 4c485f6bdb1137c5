//! What comes through a tunnel, and what is done about it.

use std::time::Duration;

use bytes::Bytes;
use mirrord_protocol::frame::{Errno, Frame, StreamId};
use tokio::net::TcpStream;

use super::{Events, MAX_STREAMS, Role, Tunnel, TunnelError};
use crate::awake;
use crate::handed::{Counted, Handed};
use crate::state::{Broken, State, Violation};
use crate::stream::Stream;

/// What has come is acknowledged once it is so many bytes,
const ACKNOWLEDGED_BYTES: usize = 256 << 10;
/// or so many frames; with the next heartbeat at the latest.
const ACKNOWLEDGED_FRAMES: u64 = 1024;
/// errno(3): too many open files.
const EMFILE: i32 = 24;

impl Tunnel {
    pub(super) fn accept(&self, bytes: Bytes, events: &dyn Events) -> Result<(), TunnelError> {
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
        self.dispatch(frame, events)?;
        if self.0.outbox.is_flooded() { Err(Violation::Flood.into()) } else { Ok(()) }
    }

    /// The socket that came beside a frame.
    fn descriptor(&self) -> Result<std::net::TcpStream, Violation> {
        let descriptor = self.0.beside.borrow().as_ref().and_then(|beside| beside.take());
        let socket = std::net::TcpStream::from(descriptor.ok_or(Violation::Descriptor)?);
        socket.set_nonblocking(true).map_err(|_| Violation::Descriptor)?;
        Ok(socket)
    }

    /// The connection that came beside a frame.
    fn handed(&self) -> Result<Handed, Violation> {
        let socket = TcpStream::from_std(self.descriptor()?).map_err(|_| Violation::Descriptor)?;
        Ok(Handed::new(socket, Counted::new(self), self))
    }

    pub(super) fn acknowledge(&self) {
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
                let handed = self.handed()?;
                if let Some(state) = self.0.streams.borrow_mut().remove(&id) {
                    state.borrow_mut().hand(handed);
                }
            }
            Frame::Brought(open) => {
                events.opened(Stream::of(self.handed()?, self), open);
            }
            Frame::Spare { v6 } => self.0.spares.add(v6, self.descriptor()?),
            Frame::Refused(id, errno) => self.break_stream(id, Broken::Refused(errno)),
            Frame::Reset(id) => self.break_stream(id, Broken::Reset),
            Frame::Fin(id, offset) => {
                if let Some(state) = self.find(id) {
                    state.borrow_mut().receive_fin(offset)?;
                }
            }
            Frame::Hand(wanted) => self.0.wanted.set(wanted),
            Frame::Received(number) => self.0.outbox.acknowledged(number)?,
            Frame::Ping(number) => self.send_passing(&Frame::Pong(number)),
            Frame::Pong(number) => {
                self.0.rtt.set(Duration::from_micros(self.now().saturating_sub(number)));
            }
            other => events.message(other)?,
        }
        Ok(())
    }

    fn receive(&self, id: StreamId, offset: u64, bytes: Bytes) -> Result<(), Violation> {
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

    fn datagram(&self, id: StreamId, bytes: Bytes) {
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

    /// A stream that the peer opens: its id must be one of the peer's and free.
    fn admit(&self, id: StreamId) -> Result<Stream, Violation> {
        let peers = if self.0.role == Role::Proxy { 0 } else { 1 };
        let free = !self.0.streams.borrow().contains_key(&id);
        if id.0 % 2 != peers || !free {
            return Err(Violation::Id(id.0));
        }
        Ok(self.enter(id))
    }
}
