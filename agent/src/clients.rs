//! Clients of the target that speak UDP: one stream for each, as long as it speaks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mirrord_netns::spoof::PacketSender;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{ClientAddr, Delivery, Open, OrigDst};
use mirrord_tunnel::{Stream, Tunnel};
use tracing::debug;

/// A client that says nothing for so long is forgotten, as nf_conntrack does with UDP streams.
const IDLE: Duration = Duration::from_secs(120);
/// How often the forgotten ones are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// The UDP clients whose datagrams go to the app.
pub(crate) struct Clients {
    tunnel: Tunnel,
    delivery: Delivery,
    /// Sends the app's answers, if they go anywhere.
    answers: Option<Rc<PacketSender>>,
    flows: RefCell<HashMap<(SocketAddr, SocketAddr), Flow>>,
    swept: Cell<Instant>,
}

struct Flow {
    stream: Stream,
    heard: Instant,
}

impl Clients {
    pub(crate) fn new(tunnel: &Tunnel, delivery: Delivery, answers: Option<PacketSender>) -> Self {
        let answers = answers.map(Rc::new);
        let swept = Cell::new(Instant::now());
        Self { tunnel: tunnel.clone(), delivery, answers, flows: RefCell::default(), swept }
    }

    /// Sends a client's datagram to the app.
    pub(crate) fn forward(&self, client: SocketAddr, server: SocketAddr, payload: &[u8]) {
        let mut flows = self.flows.borrow_mut();
        if self.swept.get().elapsed() > SWEEP {
            self.swept.set(Instant::now());
            flows.retain(|_, flow| flow.heard.elapsed() < IDLE);
        }
        let flow = flows.entry((client, server)).or_insert_with(|| self.open(client, server));
        if flow.stream.is_broken() {
            // Nobody took it, or there are too many: the next datagram tries again.
            flows.remove(&(client, server));
            return;
        }
        flow.heard = Instant::now();
        flow.stream.send_datagram(payload);
    }

    fn open(&self, client: SocketAddr, server: SocketAddr) -> Flow {
        let stream = self.tunnel.open(Open::Incoming {
            protocol: Protocol::Udp,
            delivery: self.delivery,
            client: ClientAddr(client),
            server: OrigDst(server),
        });
        if let Some(answers) = self.answers.clone() {
            stream.on_datagram(move |answer| {
                if let Err(error) = answers.send(server, client, &answer) {
                    debug!(%client, %error, "an answer was lost");
                }
            });
        }
        Flow { stream, heard: Instant::now() }
    }
}
