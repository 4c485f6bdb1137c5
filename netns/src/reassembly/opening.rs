//! Handshakes under way: what is known between a client's SYN and its ACK.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{FlowKey, aged::Aged, packet::Segment};

/// How far from a SYN the first segment that is seen after it may be, if some were missed.
const REACH: u32 = 1 << 20;

/// SYNs that wait for their ACK; the oldest is forgotten when there are too many.
#[derive(Debug)]
pub(super) struct Opening {
    syns: Aged<Syn>,
    /// Bytes that SYNs carried (TCP Fast Open), and how many are kept at most.
    data: usize,
    data_limit: usize,
}

/// A client's first packet.
#[derive(Debug)]
struct Syn {
    /// The sequence number of the first byte after it.
    first: u32,
    data: Bytes,
}

/// A handshake that is complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// The sequence number of the first byte of the stream.
    pub(super) first: u32,
    /// The bytes of the SYN that the server took.
    pub(super) data: Bytes,
}

impl Opening {
    pub(super) fn new(limit: usize, data_limit: usize) -> Self {
        Self { syns: Aged::new(limit), data: 0, data_limit }
    }

    pub(super) fn contains(&self, key: &FlowKey) -> bool {
        self.syns.contains(key)
    }

    /// Notes a SYN. One that comes again changes nothing.
    pub(super) fn syn(&mut self, segment: &Segment, data: Bytes, now: Instant) {
        let first = segment.seq.wrapping_add(1);
        let known = self.syns.get(&segment.key);
        if known.is_some_and(|syn| syn.first == first) {
            return;
        }
        let data = match self.data + data.len() <= self.data_limit {
            true => data,
            false => Bytes::new(),
        };
        self.remove(&segment.key);
        self.data += data.len();
        let oldest = self.syns.insert(segment.key, Syn { first, data }, now);
        self.data -= oldest.map_or(0, |(_, syn)| syn.data.len());
    }

    /// Takes the SYN that a segment with an ACK completes. `live` says that another connection
    /// between the same ends is followed, to which the segment belongs unless it fits the SYN
    /// exactly.
    pub(super) fn complete(&mut self, segment: &Segment, live: bool) -> Option<Opened> {
        let syn = self.syns.get(&segment.key)?;
        let ahead = segment.seq.wrapping_sub(syn.first);
        let carried = syn.data.len() as u32;
        let fits = ahead == 0 || ahead == carried || (!live && ahead <= REACH);
        if !segment.flags.ack() || !fits {
            return None;
        }
        let syn = self.remove(&segment.key)?;
        let taken = if ahead <= carried { ahead as usize } else { 0 };
        Some(Opened { first: syn.first, data: syn.data.slice(..taken) })
    }

    /// Forgets the SYN that a reset takes back.
    pub(super) fn reset(&mut self, segment: &Segment) {
        let taken_back = self.syns.get(&segment.key).is_some_and(|syn| {
            let ahead = segment.seq.wrapping_sub(syn.first) as usize;
            ahead <= syn.data.len()
        });
        if taken_back {
            self.remove(&segment.key);
        }
    }

    /// Forgets handshakes that take too long.
    pub(super) fn expire(&mut self, patience: Duration, now: Instant) {
        while let Some((_, syn)) = self.syns.pop_older(patience, now) {
            self.data -= syn.data.len();
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.syns.len()
    }

    fn remove(&mut self, key: &FlowKey) -> Option<Syn> {
        let syn = self.syns.remove(key)?;
        self.data -= syn.data.len();
        Some(syn)
    }
}
