//! What the reassembly makes of packets, right and wrong ones.

mod datagrams;
mod handshakes;
mod properties;
mod segments;
mod wire;

use std::{
    num::NonZeroU16,
    time::{Duration, Instant},
};

use crate::Proto;

use super::{Checksum, Event, FlowId, Flows, Frame, Limits, Meta, Ports};

use wire::{Tcp, packet};

/// Flows, the ports they are of, and a clock.
struct Bench {
    flows: Flows,
    ports: Ports,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let mut ports = Ports::new();
        ports.insert(Proto::Tcp, 80);
        ports.insert(Proto::Udp, 53);
        Self { flows: Flows::new(limits), ports, now: Instant::now() }
    }

    /// A flow that is open, its events taken.
    fn open(isn: u32) -> (Self, FlowId) {
        let mut bench = Self::new();
        let flow = bench.handshake(Tcp::at(isn));
        (bench, flow)
    }

    fn handshake(&mut self, tcp: Tcp) -> FlowId {
        self.tcp(tcp.syn());
        self.tcp(tcp.plus(1).ack());
        match self.events().as_slice() {
            [.., Event::Opened { flow, .. }] => *flow,
            events => panic!("no flow was opened: {events:?}"),
        }
    }

    fn tcp(&mut self, tcp: Tcp) {
        self.raw(&packet(&tcp), true, None);
    }

    fn raw(&mut self, bytes: &[u8], trusted: bool, segment: Option<u16>) {
        let meta = Meta {
            checksum: if trusted { Checksum::Trusted } else { Checksum::Unverified },
            segment: segment.and_then(NonZeroU16::new),
            truncated: false,
        };
        self.flows.packet(&self.ports, Frame::Borrowed(bytes), meta, self.now);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.flows.expire(self.now);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.flows.next()).collect()
    }

    /// The bytes of all data events, and the other events.
    fn stream(&mut self) -> (Vec<u8>, Vec<Event>) {
        let mut bytes = Vec::new();
        let mut others = Vec::new();
        for event in self.events() {
            match event {
                Event::Data { bytes: more, .. } => bytes.extend_from_slice(&more),
                other => others.push(other),
            }
        }
        (bytes, others)
    }

    /// The bytes of all data events, when there are no others.
    fn data(&mut self) -> Vec<u8> {
        let (bytes, others) = self.stream();
        assert_eq!(others, []);
        bytes
    }
}
