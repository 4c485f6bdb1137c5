//! How the target's clients get to the app: each plane has a way of its own.

use std::net::SocketAddr;
use std::rc::Rc;

use mirrord_protocol::frame::Delivery;
use mirrord_tunnel::Stream;

/// A client of a target, as a tunnel has brought it.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    pub(crate) delivery: Delivery,
    /// Who it is.
    pub(crate) address: SocketAddr,
    /// Which address of the target it came to.
    pub(crate) server: SocketAddr,
}

/// Takes clients to the app.
pub(crate) trait Reception {
    /// Takes a connection.
    fn connection(self: Rc<Self>, client: Client);
    /// Takes datagrams, the first of which is about to come.
    fn datagrams(self: Rc<Self>, client: Client);
}
