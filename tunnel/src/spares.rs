//! Sockets of the target's namespace that are not connected yet. Whoever has one connects it itself,
//! and the kernel does it where the socket was made: nobody need be asked, nor woken, for each
//! connection.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Errno, Frame, Open, OrigDst};
use rustix::net::connect;

use crate::begun::stands;
use crate::handed::{Counted, Handed};
use crate::state::Broken;
use crate::stream::{OpenError, Stream};
use crate::tunnel::Tunnel;

/// So many of a family are kept; when half of them are gone, others are asked for.
const KEPT: u8 = 32;
/// Who has given none is asked again after so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is kept, by family.
#[derive(Default)]
pub(crate) struct Spares {
    /// Whether there is a pipe whose other end gives any.
    given: Cell<bool>,
    v4: RefCell<Family>,
    v6: RefCell<Family>,
}

#[derive(Default)]
struct Family {
    sockets: Vec<TcpStream>,
    asked: Option<Instant>,
}

impl Spares {
    fn of(&self, v6: bool) -> &RefCell<Family> {
        if v6 { &self.v6 } else { &self.v4 }
    }

    /// Keeps one that has come, unless there are enough.
    pub(crate) fn add(&self, v6: bool, socket: TcpStream) {
        let mut family = self.of(v6).borrow_mut();
        family.asked = None;
        if family.sockets.len() < KEPT.into() {
            family.sockets.push(socket);
        }
    }

    /// There is a pipe, over which they come or do not.
    pub(crate) fn offer(&self, given: bool) {
        if !given {
            self.clear();
        }
        self.given.set(given);
    }

    /// There is no pipe.
    pub(crate) fn pause(&self) {
        self.given.set(false);
    }

    pub(crate) fn clear(&self) {
        self.pause();
        self.v4.take();
        self.v6.take();
    }
}

impl Family {
    /// One of them, if there is one, and how many more to ask for.
    fn take(&mut self, now: Instant) -> (Option<TcpStream>, Option<u8>) {
        let socket = self.sockets.pop();
        let left = u8::try_from(self.sockets.len()).unwrap_or(KEPT);
        let is_asked = self.asked.is_some_and(|asked| now.duration_since(asked) < PATIENCE);
        if left > KEPT / 2 || is_asked {
            return (socket, None);
        }
        self.asked = Some(now);
        (socket, Some(KEPT - left))
    }
}

impl Tunnel {
    /// Connects to where the app wants, from the target's namespace.
    ///
    /// # Errors
    /// As [`Stream::connected`].
    pub async fn connect(&self, to: SocketAddr) -> Result<Stream, OpenError> {
        match self.spare(to.is_ipv6()) {
            Some(socket) => self.connect_here(socket, to).await,
            None => self.connect_there(to).await,
        }
    }

    /// The same, by the agent.
    ///
    /// # Errors
    /// As [`Stream::connected`].
    pub async fn connect_there(&self, to: SocketAddr) -> Result<Stream, OpenError> {
        let stream = self.open(Open::Connect(Protocol::Tcp, OrigDst(to)));
        stream.connected().await?;
        Ok(stream)
    }

    async fn connect_here(&self, socket: TcpStream, to: SocketAddr) -> Result<Stream, OpenError> {
        let counted = Counted::new(self);
        // The other end does not hear of it; it breaks when the tunnel ends.
        let stream = self.enter(self.free_id());
        let begun = tokio::select! {
            begun = begin(socket, to) => begun,
            () = stream.broken() => return Err(OpenError::Reset),
        };
        self.forget(stream.id);
        match begun.and_then(tokio::net::TcpStream::from_std) {
            Ok(socket) => {
                stream.state.borrow_mut().hand(Handed::new(socket, counted, self));
                Ok(stream)
            }
            Err(error) => {
                stream.state.borrow_mut().fail(Broken::Reset);
                Err(OpenError::Refused(Errno::of(&error)))
            }
        }
    }

    fn spare(&self, v6: bool) -> Option<TcpStream> {
        // With too many of them, the other end has to relay.
        if !self.0.spares.given.get() || self.0.full.get() {
            return None;
        }
        let (socket, wanted) = self.0.spares.of(v6).borrow_mut().take(Instant::now());
        if let Some(count) = wanted {
            self.send(&Frame::Want { v6, count });
        }
        socket
    }

    /// Gives the other end a socket to connect, non-blocking, if it takes any.
    pub fn give(&self, v6: bool, socket: TcpStream) {
        if self.hands() {
            self.hand(&Frame::Spare { v6 }, socket);
        }
    }
}

async fn begin(socket: TcpStream, to: SocketAddr) -> io::Result<TcpStream> {
    match connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => stands(socket).await,
        Err(error) => Err(error.into()),
    }
}
