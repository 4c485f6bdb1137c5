//! One pair of an app's address and a remote one that exchange datagrams, and the way between them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mirrord_protocol::frame::Delivery;
use mirrord_tunnel::Stream;
use socket2::SockRef;
use tokio::net::UdpSocket;

use crate::names;

/// A flow that carries nothing for so long is over; nf_conntrack forgets UDP streams after 120 s.
pub(crate) const IDLE: Duration = Duration::from_secs(120);
/// A question that is not answered by then never is.
pub(crate) const DNS_IDLE: Duration = Duration::from_secs(15);
/// So many questions of one socket may wait for their answers.
const QUESTIONS: usize = 64;

/// What the app sends to one remote address from one of its own.
pub(crate) struct Flow {
    path: Path,
    heard: Instant,
    idle: Duration,
    questions: VecDeque<Bytes>,
}

/// Where the app's datagrams go.
pub(crate) enum Path {
    Tunnel(Stream),
    /// Past the tunnel, from this namespace.
    Direct(Rc<UdpSocket>),
    /// To a client of this machine, from the socket that it came to.
    Door(Rc<UdpSocket>, SocketAddr),
    /// The client is the original's: the app's answers go nowhere.
    Copied {
        _stream: Stream,
    },
}

impl Path {
    /// To a client that a tunnel has brought.
    pub(crate) fn of(stream: Stream, delivery: Delivery) -> Self {
        match delivery {
            Delivery::Steal => Self::Tunnel(stream),
            Delivery::Mirror => Self::Copied { _stream: stream },
        }
    }
}

impl Flow {
    pub(crate) fn new(path: Path, idle: Duration) -> Self {
        Self { path, heard: Instant::now(), idle, questions: VecDeque::new() }
    }

    /// Something came from the other side.
    pub(crate) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Whether it is over.
    pub(crate) fn is_silent(&self) -> bool {
        self.heard.elapsed() >= self.idle
    }

    pub(crate) fn send(&mut self, payload: &[u8]) {
        self.heard = Instant::now();
        match &self.path {
            Path::Tunnel(stream) => {
                stream.send_datagram(payload);
            }
            Path::Direct(socket) => {
                // Not `try_send`: that drops the first one, before the socket was ever polled.
                let _ = SockRef::from(&**socket).send(payload);
            }
            Path::Door(socket, client) => {
                let _ = SockRef::from(&**socket).send_to(payload, &(*client).into());
            }
            Path::Copied { .. } => {}
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(&self.path, Path::Tunnel(stream) if stream.is_broken())
    }

    pub(crate) fn remember(&mut self, question: &[u8]) {
        if self.questions.len() == QUESTIONS {
            self.questions.pop_front();
        }
        self.questions.push_back(Bytes::copy_from_slice(question));
    }

    pub(crate) fn recall(&mut self, answer: &[u8]) -> Option<Bytes> {
        let at =
            self.questions.iter().position(|question| names::id(question) == names::id(answer))?;
        self.questions.remove(at)
    }
}
