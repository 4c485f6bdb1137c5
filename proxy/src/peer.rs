//! The agent beside one target, as its tunnel shows it.

use std::cell::RefCell;
use std::rc::Rc;

use mirrord_protocol::control::{Protocol, ProxyEvent, TargetIndex};
use mirrord_protocol::frame::{Description, Errno, Frame, Open};
use mirrord_tunnel::{Events, Stream, TunnelError};
use tokio::sync::Notify;

use crate::incoming;
use crate::link::Link;
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

    /// Waits for the answer to [`Frame::Describe`].
    pub(crate) async fn description(&self) -> Description {
        loop {
            if let Some(description) = self.description.borrow_mut().take() {
                return description;
            }
            self.described.notified().await;
        }
    }
}

impl Events for Peer {
    fn opened(&self, stream: Stream, open: Open) {
        match open {
            Open::Incoming { protocol: Protocol::Tcp, delivery, client, server } => {
                let link = self.link.clone();
                self.link
                    .tasks
                    .spawn_local(incoming::connect(link, stream, delivery, client.0, server.0));
            }
            Open::Incoming { protocol: Protocol::Udp, delivery, client, server } => {
                if let Some(datagrams) = self.link.datagrams() {
                    datagrams.incoming(stream, delivery, client.0, server.0);
                }
            }
            // Only the app's side asks to be connected.
            Open::Connect(..) => stream.refuse(Errno(nix::libc::EPROTO)),
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
                     this side was too slow for a whole copy"
                ),
            }),
            _ => return Err(TunnelError::Unexpected),
        }
        Ok(())
    }
}
