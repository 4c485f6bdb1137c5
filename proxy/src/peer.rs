//! The agent beside one target, as its tunnel shows it.

use std::cell::RefCell;
use std::rc::Rc;

use mirrord_protocol::control::{Protocol, ProxyEvent, TargetIndex};
use mirrord_protocol::frame::{Description, Errno, Frame, Open};
use mirrord_tunnel::{Events, Stream, TunnelError};
use tokio::sync::Notify;

use crate::link::Link;
use crate::reception::Client;
use crate::report::say;

/// What an agent asks through one tunnel.
pub(crate) struct Peer {
    link: Rc<Link>,
    target: TargetIndex,
    description: RefCell<Option<Description>>,
    described: Notify,
}

impl Peer {
    pub(crate) fn new(link: Rc<Link>, target: TargetIndex) -> Self {
        Self { link, target, description: RefCell::default(), described: Notify::new() }
    }

    /// Waits for an answer to [`Frame::Describe`].
    pub(crate) async fn described(&self) {
        while self.description.borrow().is_none() {
            self.described.notified().await;
        }
    }

    /// The last answer, once.
    pub(crate) fn take_description(&self) -> Option<Description> {
        self.description.take()
    }
}

impl Events for Peer {
    fn opened(&self, stream: Stream, open: Open) {
        let Open::Incoming { protocol, delivery, client, server } = open else {
            // Only the app's side asks to be connected.
            return stream.refuse(Errno(nix::libc::EPROTO));
        };
        let client = Client { stream, delivery, address: client.0, server: server.0 };
        match (self.link.reception(), protocol) {
            (Some(reception), Protocol::Tcp) => reception.connection(client),
            (Some(reception), Protocol::Udp) => reception.datagrams(client),
            (None, _) => client.stream.refuse(Errno(nix::libc::ECONNREFUSED)),
        }
    }

    fn message(&self, frame: Frame) -> Result<(), TunnelError> {
        match frame {
            Frame::Description(description) => {
                self.description.replace(Some(*description));
                self.described.notify_one();
            }
            Frame::Subscribed(port, error) => self.link.subscribed(self.target, port, error),
            Frame::MirrorLoss { packets, connections } => say(&ProxyEvent::Warning {
                message: format!(
                    "the mirror left out {connections} connections and {packets} packets: \
                     this side was too slow for a whole copy, or the target's machine too busy"
                ),
            }),
            _ => return Err(TunnelError::Unexpected),
        }
        Ok(())
    }
}
