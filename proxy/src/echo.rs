//! The app's echo requests: asked by the agent, and answered here in the name of who was asked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mirrord_netns::calls::Echo;
use mirrord_protocol::frame::{Errno, Open, OrigDst};
use mirrord_tunnel::Stream;
use nix::libc;
use tracing::debug;

use crate::link::Link;
use crate::place::Netns;

/// A socket that asks nothing for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// So many sockets may ask at once.
const MOST: usize = 1024;

/// Who asks, whom, and by which of its sockets.
type Key = (Ipv4Addr, Ipv4Addr, u16);

/// The app's sockets that ask for echoes.
pub(crate) struct Echoes {
    link: Rc<Link>,
    place: Rc<Netns>,
    flows: RefCell<HashMap<Key, Flow>>,
}

struct Flow {
    stream: Stream,
    /// What was asked last.
    last: Rc<RefCell<Echo>>,
    used: Cell<Instant>,
}

impl Echoes {
    pub(crate) fn new(link: Rc<Link>, place: Rc<Netns>) -> Self {
        Self { link, place, flows: RefCell::default() }
    }

    /// Has the agent ask.
    pub(crate) fn ask(&self, echo: Echo) {
        let key = (echo.app, echo.to, echo.id);
        let mut flows = self.flows.borrow_mut();
        flows.retain(|_, flow| !flow.stream.is_broken() && flow.used.get().elapsed() < IDLE);
        let room = flows.len() < MOST;
        let flow = match flows.get(&key) {
            Some(flow) => flow,
            None => match self.open(&echo).filter(|_| room) {
                Some(flow) => flows.entry(key).or_insert(flow),
                None => return self.fail(&echo, Errno(libc::ENETUNREACH)),
            },
        };
        let request = [&echo.sequence.to_be_bytes()[..], &echo.payload].concat();
        flow.last.replace(echo);
        flow.used.set(Instant::now());
        flow.stream.send_datagram(&request);
    }

    fn open(&self, echo: &Echo) -> Option<Flow> {
        let tunnel = self.link.tunnel_now()?;
        let stream = tunnel.open(Open::Echo(OrigDst(SocketAddr::new(echo.to.into(), 0))));
        let last = Rc::new(RefCell::new(echo.clone()));
        let (asked, place) = (last.clone(), self.place.clone());
        stream.on_datagram(move |answer| {
            let Some((sequence, payload)) = answer.split_first_chunk() else { return };
            let sequence = u16::from_be_bytes(*sequence);
            if let Err(error) = place.sender.echo(&asked.borrow(), sequence, payload) {
                debug!(%error, "an echo was lost");
            }
        });
        let (asked, place) = (last.clone(), self.place.clone());
        stream.on_refusal(move |errno| fail(&place, &asked.borrow(), errno));
        Some(Flow { stream, last, used: Cell::new(Instant::now()) })
    }

    fn fail(&self, echo: &Echo, errno: Errno) {
        fail(&self.place, echo, errno);
    }
}

fn fail(place: &Netns, echo: &Echo, errno: Errno) {
    if let Err(error) = place.sender.fail_echo(echo, errno.0) {
        debug!(%error, "nobody hears that an echo request arrives nowhere");
    }
}
