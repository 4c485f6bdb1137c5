//! A copy of the target's incoming traffic, had beside its path: the target never waits for us.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use mirrord_netns::TargetNet;
use mirrord_netns::capture::Capture;
use mirrord_netns::reassembly::{Event, FlowId, Flows, Limits};
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{ClientAddr, Delivery, Frame, Open, OrigDst, Port};
use mirrord_tunnel::datagrams::Readiness;
use mirrord_tunnel::{Stream, Tunnel};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::clients::Clients;
use crate::crowd::{Allowance, Crowd};
use crate::steal::proto;

/// Bytes of one connection that may wait for the developer's side; past them its copy is given up.
const WAITING_ONE: usize = 4 << 20;
/// The same for all connections together.
const WAITING_ALL: usize = 32 << 20;
/// How often holes are judged, and whether there is a core to spare.
const TICK: Duration = Duration::from_millis(100);
/// How often losses are told at most.
const NEWS: Duration = Duration::from_secs(10);
/// A connection whose copy the app does not end is let go of after so long.
const LINGER: Duration = Duration::from_secs(60);

/// What mirrors for one tunnel.
pub(crate) struct Mirror {
    capture: RefCell<Capture>,
    ports: RefCell<HashSet<Port>>,
    tunnel: Tunnel,
    tasks: TaskTracker,
    clients: Clients,
    copies: RefCell<HashMap<FlowId, Rc<Copy>>>,
    waiting: Rc<Cell<usize>>,
    given_up: Cell<u64>,
    /// Packets that the kernel dropped, and were not told yet.
    dropped: Cell<u64>,
    /// Of the connections that the reassembly lost or the filter left out, so many were told.
    told: Cell<u64>,
    told_at: Cell<Option<Instant>>,
    /// What may be copied until the next tick.
    allowance: RefCell<Allowance>,
    /// No copy begins now.
    paused: Cell<bool>,
    stop: CancellationToken,
}

/// One connection's copy on its way to the app.
#[derive(Default)]
struct Copy {
    bytes: RefCell<VecDeque<Bytes>>,
    waiting: Cell<usize>,
    end: Cell<Option<End>>,
    news: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
}

impl Mirror {
    pub(crate) fn start(
        tunnel: &Tunnel,
        tasks: &TaskTracker,
        target: &TargetNet,
    ) -> anyhow::Result<Rc<Self>> {
        let capture = Capture::open(target).context("copying the target's traffic")?;
        let readiness = Readiness::of(&capture)?;
        let mirror = Rc::new(Self {
            capture: RefCell::new(capture),
            ports: RefCell::default(),
            tunnel: tunnel.clone(),
            tasks: tasks.clone(),
            clients: Clients::new(tunnel, Delivery::Mirror, None),
            copies: RefCell::default(),
            waiting: Rc::default(),
            given_up: Cell::default(),
            dropped: Cell::default(),
            told: Cell::default(),
            told_at: Cell::default(),
            allowance: RefCell::new(Allowance::ALL),
            paused: Cell::default(),
            stop: CancellationToken::new(),
        });
        let (stop, work) = (mirror.stop.clone(), mirror.clone());
        tasks.spawn_local(async move {
            stop.run_until_cancelled(work.run(readiness)).await;
        });
        Ok(mirror)
    }

    pub(crate) fn add(&self, port: Port) -> anyhow::Result<()> {
        self.capture.borrow_mut().add(proto(port.protocol), port.number)?;
        self.ports.borrow_mut().insert(port);
        Ok(())
    }

    pub(crate) fn remove(&self, port: Port) -> anyhow::Result<()> {
        if self.ports.borrow_mut().remove(&port) {
            self.capture.borrow_mut().remove(proto(port.protocol), port.number)?;
        }
        Ok(())
    }

    /// While there is no way to the app, new connections are left out, and counted.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.set(paused);
    }

    /// Ends the task, whose hold on this would otherwise keep the capture.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    async fn run(self: Rc<Self>, readiness: Readiness) {
        let mut flows = Flows::new(Limits::default());
        let (mut tick, mut crowd) = (tokio::time::interval(TICK), Crowd::new());
        loop {
            tokio::select! {
                read = readiness.take(|| self.read(&mut flows)) => if let Err(error) = read {
                    return self.fail(&error);
                },
                _ = tick.tick() => {
                    flows.expire(Instant::now());
                    self.allow(crowd.look());
                    self.tell_losses(&flows);
                }
            }
            while let Some(event) = flows.next() {
                self.handle(event, &mut flows);
            }
            tokio::task::yield_now().await;
        }
    }

    fn allow(&self, allowance: Allowance) {
        self.allowance.replace(allowance);
        if let Err(error) = self.capture.borrow_mut().admit(allowance.connections) {
            debug!(%error, "the copies can't be limited");
        }
    }

    /// No copy comes any more: every port's subscription has failed after all.
    fn fail(&self, error: &io::Error) {
        warn!(%error, "the capture ended");
        for port in self.ports.take() {
            let reason = format!("copying the target's traffic ended: {error}");
            self.tunnel.send(&Frame::Subscribed(port, Some(reason)));
        }
    }

    /// One batch of packets; [`io::ErrorKind::WouldBlock`] when there was none.
    fn read(&self, flows: &mut Flows) -> io::Result<()> {
        match self.capture.borrow_mut().read(flows)? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn handle(self: &Rc<Self>, event: Event, flows: &mut Flows) {
        match event {
            Event::Opened { flow, .. } if self.paused.get() => {
                flows.abandon(flow);
                self.given_up.set(self.given_up.get() + 1);
            }
            Event::Opened { flow, client, server } => self.begin(flow, client, server),
            Event::Data { flow, bytes } => {
                if !self.queue(flow, bytes) {
                    flows.abandon(flow);
                    self.end(flow, End::Reset);
                    self.given_up.set(self.given_up.get() + 1);
                }
            }
            Event::Fin { flow } => self.end(flow, End::Fin),
            Event::Reset { flow } | Event::Lost { flow } => self.end(flow, End::Reset),
            Event::Datagram { client, server, payload } => {
                self.clients.forward(client, server, &payload);
            }
        }
    }

    fn begin(self: &Rc<Self>, flow: FlowId, client: SocketAddr, server: SocketAddr) {
        let stream = self.tunnel.open(Open::Incoming {
            protocol: Protocol::Tcp,
            delivery: Delivery::Mirror,
            client: ClientAddr(client),
            server: OrigDst(server),
        });
        stream.discard();
        let copy = Rc::new(Copy::default());
        self.copies.borrow_mut().insert(flow, copy.clone());
        let mirror = self.clone();
        self.tasks.spawn_local(async move {
            copy.send(&stream, &mirror.waiting).await;
            mirror.waiting.set(mirror.waiting.get() - copy.waiting.get());
            mirror.copies.borrow_mut().remove(&flow);
        });
    }

    /// Whether there was room; a copy that has ended takes, and drops, everything.
    fn queue(&self, flow: FlowId, bytes: Bytes) -> bool {
        let Some(copy) = self.copies.borrow().get(&flow).cloned() else { return true };
        let (one, all) = (copy.waiting.get() + bytes.len(), self.waiting.get() + bytes.len());
        let fits = one <= WAITING_ONE && all <= WAITING_ALL;
        if !fits || !self.allowance.borrow_mut().take(bytes.len()) {
            return false;
        }
        copy.waiting.set(one);
        self.waiting.set(all);
        copy.bytes.borrow_mut().push_back(bytes);
        copy.news.notify_one();
        true
    }

    fn end(&self, flow: FlowId, end: End) {
        if let Some(copy) = self.copies.borrow().get(&flow) {
            copy.end.set(Some(end));
            copy.news.notify_one();
        }
    }

    fn tell_losses(&self, flows: &Flows) {
        let dropped = self.capture.borrow_mut().dropped().unwrap_or_default();
        self.dropped.set(self.dropped.get() + dropped);
        let left_out = self.capture.borrow_mut().left_out().unwrap_or_default();
        let lost = flows.counts().lost + left_out;
        let anything = self.dropped.get() + self.given_up.get() + lost - self.told.get() > 0;
        if !anything || self.told_at.get().is_some_and(|at| at.elapsed() < NEWS) {
            return;
        }
        let packets = self.dropped.take();
        let connections = self.given_up.take() + lost - self.told.replace(lost);
        self.told_at.set(Some(Instant::now()));
        self.tunnel.send(&Frame::MirrorLoss { packets, connections });
    }
}

impl Copy {
    /// Sends what comes until it ends; dropping the stream then resets what is not finished.
    async fn send(&self, stream: &Stream, all: &Cell<usize>) {
        loop {
            if self.end.get() == Some(End::Reset) {
                return;
            }
            let next = self.bytes.borrow_mut().pop_front();
            let Some(bytes) = next else {
                if self.end.get() == Some(End::Fin) {
                    stream.finish();
                    let _ = tokio::time::timeout(LINGER, stream.ended()).await;
                    return;
                }
                tokio::select! {
                    () = self.news.notified() => continue,
                    () = stream.broken() => return,
                }
            };
            let len = bytes.len();
            let sent = tokio::select! {
                sent = stream.send(bytes) => sent,
                () = self.reset() => return,
            };
            self.waiting.set(self.waiting.get() - len);
            all.set(all.get() - len);
            if sent.is_err() {
                return;
            }
        }
    }

    async fn reset(&self) {
        while self.end.get() != Some(End::Reset) {
            self.news.notified().await;
        }
    }
}
