//! Connections that were handed over, and how many of them this process takes.

use mirrord_protocol::frame::Frame;
use nix::sys::resource::{Resource, getrlimit};
use tokio::net::TcpStream;

use crate::tunnel::Tunnel;

/// One has two descriptors here, a stream one: of all that there may be, so large a part is for them.
const PART: u64 = 4;

/// A connection that has come itself.
pub(crate) struct Handed {
    pub(crate) socket: TcpStream,
    pub(crate) counted: Counted,
    pub(crate) under_way: UnderWay,
}

impl Handed {
    pub(crate) fn new(socket: TcpStream, counted: Counted, tunnel: &Tunnel) -> Self {
        Self { socket, counted, under_way: UnderWay::new(tunnel) }
    }
}

/// Counts as a connection that was handed over until it is dropped: with too many, the other end
/// keeps the next ones.
pub(crate) struct Counted(Tunnel);

impl Counted {
    pub(crate) fn new(tunnel: &Tunnel) -> Self {
        let count = tunnel.0.handed.get() + 1;
        tunnel.0.handed.set(count);
        if count == tunnel.0.most && !tunnel.0.full.replace(true) {
            tunnel.send(&Frame::Hand(false));
        }
        Self(tunnel.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let tunnel = &self.0;
        let count = tunnel.0.handed.get() - 1;
        tunnel.0.handed.set(count);
        if count < tunnel.0.most / 2 && tunnel.0.full.replace(false) {
            tunnel.send(&Frame::Hand(true));
        }
    }
}

/// Counts as not yet delivered until it is dropped.
pub(crate) struct UnderWay(Tunnel);

impl UnderWay {
    fn new(tunnel: &Tunnel) -> Self {
        tunnel.0.bridged.set(tunnel.0.bridged.get() + 1);
        Self(tunnel.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.bridged.set(self.0.0.bridged.get() - 1);
    }
}

/// How many connections of a tunnel may be handed over at once.
pub(crate) fn most() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft / PART)
}
