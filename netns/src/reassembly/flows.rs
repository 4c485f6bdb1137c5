//! All flows of a capture.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::Proto;

use super::{
    Counts, Event, FlowId, FlowKey, Limits, Ports, Verdict,
    aged::Aged,
    fragments::Fragments,
    opening::{Opened, Opening},
    packet::{
        Checksum, Fragment, Frame, Meta, Parsed, Payload, Segment, Unreadable, Whole, parse,
        parse_transport,
    },
    queue::Queue,
    stream::{End, Stream},
};

/// Connections that are over or not followed, remembered so that each is counted once.
const OVER: usize = 8192;

/// Flows whose client has sent all that are still watched for a reset.
const FINISHED: usize = 4096;

/// Verdicts that are kept for the capture, which takes them after every batch.
const VERDICTS: usize = 4096;

/// How often all flows are looked at for what has waited too long.
const SWEEP: Duration = Duration::from_millis(250);

/// The flows of a capture: takes packets, gives [`Event`]s.
#[derive(Debug)]
pub struct Flows {
    limits: Limits,
    table: HashMap<FlowKey, Flow>,
    keys: HashMap<FlowId, FlowKey>,
    finished: Aged<()>,
    over: Aged<()>,
    opening: Opening,
    fragments: Fragments,
    queue: Queue,
    verdicts: Vec<Verdict>,
    waiting: usize,
    counts: Counts,
    last_id: u64,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Flow {
    id: FlowId,
    /// The sequence number of its first byte.
    first: u32,
    stream: Stream,
    /// The client has sent all, and that was said.
    finished: bool,
    /// When the last packet came.
    last: Instant,
}

impl Flows {
    /// No flow yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: HashMap::new(),
            keys: HashMap::new(),
            finished: Aged::new(FINISHED),
            over: Aged::new(OVER),
            opening: Opening::new(limits.opening, limits.waiting / 4),
            fragments: Fragments::new(limits.fragments),
            queue: Queue::new(limits.queued),
            verdicts: Vec::new(),
            waiting: 0,
            counts: Counts::default(),
            last_id: 0,
            swept: None,
        }
    }

    /// The next event; none means none until further packets come.
    #[expect(clippy::should_implement_trait, reason = "not a sequence that ends")]
    pub fn next(&mut self) -> Option<Event> {
        self.queue.pop()
    }

    /// Gives up what has waited too long. To be called now and then; a call costs little if the
    /// last one was a short time ago.
    pub fn expire(&mut self, now: Instant) {
        let due = |swept: Instant| now.saturating_duration_since(swept) >= SWEEP;
        if !self.swept.is_none_or(due) {
            return;
        }
        self.swept = Some(now);
        self.opening.expire(self.limits.handshake, now);
        self.fragments.expire(now);
        while let Some((key, ())) = self.finished.pop_older(self.limits.linger, now) {
            self.remove(&key, now);
        }
        let late = |flow: &Flow| {
            let since = |from: Instant| now.saturating_duration_since(from);
            since(flow.last) >= self.limits.idle
                || flow.stream.hole().is_some_and(|from| since(from) >= self.limits.hole)
        };
        let late = self.table.iter().filter(|(_, flow)| late(flow));
        for key in late.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.lose(&key, now);
        }
    }

    /// What happened so far, and what is kept now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            fragments_dropped: self.fragments.dropped(),
            flows: self.table.len(),
            opening: self.opening.len(),
            waiting: self.waiting,
            queued: self.queue.held(),
            ..self.counts
        }
    }

    /// Stops following a flow: it has no further event, not even those that are queued already.
    pub fn abandon(&mut self, flow: FlowId) {
        self.queue.forget(flow);
        let key = self.keys.get(&flow).copied();
        if let Some((key, Flow { last, .. })) = key.and_then(|key| self.table.get_key_value(&key)) {
            let (key, last) = (*key, *last);
            self.remove(&key, last);
            self.verdict(Verdict::Ignore(key));
        }
    }

    /// Takes a packet that was sent to the target, from its IP header on. Those to other ports
    /// than these are left out.
    pub fn packet(&mut self, ports: &Ports, frame: Frame<'_>, meta: Meta, now: Instant) {
        let parsed = match parse(frame.as_slice(), meta) {
            Ok(Parsed::Fragment(fragment)) => return self.fragment(ports, frame, fragment, now),
            parsed => parsed,
        };
        self.transport(ports, &frame, parsed, meta, now);
    }

    /// Ends the flows of a port that is not copied any more.
    pub(crate) fn close_port(&mut self, port: u16, now: Instant) {
        let keys = self.table.keys().filter(|key| key.server.port() == port);
        for key in keys.copied().collect::<Vec<_>>() {
            if let Some(flow) = self.remove(&key, now) {
                self.queue.push(Event::Lost { flow: flow.id });
                self.verdict(Verdict::Ignore(key));
            }
        }
    }

    /// The flows whose client has not sent all yet, as far as is known.
    pub(crate) fn followed(&self) -> impl Iterator<Item = FlowKey> {
        let followed = self.table.iter().filter(|(_, flow)| !flow.finished);
        followed.map(|(key, _)| *key)
    }

    /// Ends a flow if what has come of it does not reach this sequence number, which counts the
    /// end of the stream as one more.
    pub(crate) fn expect_up_to(&mut self, key: &FlowKey, seq: u32, now: Instant) {
        let short = |flow: &Flow| !flow.finished && !flow.stream.reaches(seq);
        if self.table.get(key).is_some_and(short) {
            self.lose(key, now);
        }
    }

    /// What the capture may do with connections, since the last call.
    pub(crate) fn verdicts(&mut self) -> impl Iterator<Item = Verdict> {
        self.verdicts.drain(..)
    }

    fn fragment(&mut self, ports: &Ports, frame: Frame<'_>, fragment: Fragment, now: Instant) {
        let data = frame.copy(fragment.range.clone());
        let Some(whole) = self.fragments.insert(&fragment, data, now) else {
            return;
        };
        let meta = Meta { checksum: Checksum::Unverified, segment: None, truncated: false };
        let Whole { between, proto, .. } = fragment.whole;
        let parsed = parse_transport(&whole, 0..whole.len(), between, proto, meta.checksum);
        self.transport(ports, &Frame::Shared(whole.into()), parsed, meta, now);
    }

    fn transport(
        &mut self,
        ports: &Ports,
        frame: &Frame<'_>,
        parsed: Result<Parsed, Unreadable>,
        meta: Meta,
        now: Instant,
    ) {
        match parsed {
            Ok(Parsed::Tcp(segment)) if ports.contains(Proto::Tcp, segment.key.server.port()) => {
                self.tcp(frame, &segment, now);
            }
            Ok(Parsed::Udp(payload)) if ports.contains(Proto::Udp, payload.key.server.port()) => {
                self.udp(frame, payload, meta);
            }
            Ok(_) => {}
            Err(Unreadable::Malformed) => self.counts.malformed += 1,
            Err(Unreadable::Unsupported) => self.counts.unsupported += 1,
            Err(Unreadable::Truncated) => self.counts.truncated += 1,
        }
    }

    fn udp(&mut self, frame: &Frame<'_>, payload: Payload, meta: Meta) {
        let Payload { key, range } = payload;
        let size = match meta.segment {
            Some(size) if range.len() > usize::from(size.get()) => usize::from(size.get()),
            _ => range.len().max(1),
        };
        let mut start = range.start;
        loop {
            let end = range.end.min(start + size);
            match self.queue.offer(Event::datagram(key, frame.share(start..end))) {
                true => self.counts.datagrams += 1,
                false => self.counts.datagrams_dropped += 1,
            }
            start = end;
            if start >= range.end {
                return;
            }
        }
    }

    fn tcp(&mut self, frame: &Frame<'_>, segment: &Segment, now: Instant) {
        let (key, flags) = (segment.key, segment.flags);
        if flags.syn() {
            if !flags.ack() && !flags.rst() {
                self.syn(frame, segment, now);
            }
            return;
        }
        let live = self.table.get(&key).is_some_and(|flow| !flow.finished);
        if flags.rst() {
            self.opening.reset(segment);
        } else if let Some(opened) = self.opening.complete(segment, live) {
            self.open(key, opened, now);
        }
        if self.table.contains_key(&key) {
            self.segment(frame, segment, now);
        } else if !flags.rst() && !self.over.contains(&key) && !self.opening.contains(&key) {
            self.counts.skipped += 1;
            self.over.insert(key, (), now);
            self.verdict(Verdict::Ignore(key));
        }
    }

    fn syn(&mut self, frame: &Frame<'_>, segment: &Segment, now: Instant) {
        let known = self.table.get(&segment.key);
        if known.is_some_and(|flow| flow.first == segment.seq.wrapping_add(1)) {
            return;
        }
        let data = frame.copy(segment.payload.clone());
        self.opening.syn(segment, data, now);
        if self.over.contains(&segment.key) {
            self.verdict(Verdict::Follow(segment.key));
        }
    }

    fn open(&mut self, key: FlowKey, opened: Opened, now: Instant) {
        match self.table.get(&key) {
            Some(flow) if flow.finished => drop(self.remove(&key, now)),
            Some(_) => self.lose(&key, now),
            None => {}
        }
        self.over.remove(&key);
        if self.table.len() >= self.limits.flows
            && let Some((oldest, ())) = self.finished.pop_older(Duration::ZERO, now)
        {
            self.remove(&oldest, now);
        }
        let id = FlowId(self.last_id + 1);
        if self.table.len() >= self.limits.flows || !self.queue.offer(Event::opened(id, key)) {
            self.counts.refused += 1;
            self.over.insert(key, (), now);
            self.verdict(Verdict::Ignore(key));
            return;
        }
        self.last_id = id.0;
        self.counts.opened += 1;
        self.keys.insert(id, key);
        let flow = Flow {
            id,
            first: opened.first,
            stream: Stream::new(opened.first),
            finished: false,
            last: now,
        };
        self.table.insert(key, flow);
        if !opened.data.is_empty() {
            self.early_data(&key, opened, now);
        }
    }

    /// Hands out what the SYN carried.
    fn early_data(&mut self, key: &FlowKey, opened: Opened, now: Instant) {
        let segment = Segment {
            key: *key,
            seq: opened.first,
            flags: Default::default(),
            payload: 0..opened.data.len(),
        };
        self.segment(&Frame::Shared(opened.data), &segment, now);
    }

    /// Takes a segment of a flow that is followed.
    fn segment(&mut self, frame: &Frame<'_>, segment: &Segment, now: Instant) {
        let Some(flow) = self.table.get_mut(&segment.key) else {
            return;
        };
        let (stream, flow_id, queue) = (&mut flow.stream, flow.id, &mut self.queue);
        let (held, next) = (stream.held(), stream.next());
        let mut room = true;
        if segment.flags.rst() {
            stream.reset(segment.seq);
        } else {
            let part = segment.payload.clone();
            let end = segment.seq.wrapping_add(part.len() as u32);
            stream.insert(segment.seq, frame, part, &mut |bytes: Bytes| {
                let flow = flow_id;
                room = room && queue.offer(Event::Data { flow, bytes });
            });
            if segment.flags.fin() {
                stream.finish(end);
            }
        }
        stream.watch(stream.next() != next, now);
        flow.last = now;
        self.waiting = self.waiting - held + stream.held();
        let fits = stream.held() <= self.limits.waiting_per_flow
            && (stream.held() <= held || self.waiting <= self.limits.waiting);
        if room && fits {
            self.settle(&segment.key, now);
        } else {
            self.lose(&segment.key, now);
        }
    }

    /// Says that a flow has ended, if it has.
    fn settle(&mut self, key: &FlowKey, now: Instant) {
        let Some(flow) = self.table.get_mut(key) else {
            return;
        };
        let id = flow.id;
        match flow.stream.ended() {
            Some(End::Fin) if !flow.finished => {
                flow.finished = true;
                self.queue.push(Event::Fin { flow: id });
                if let Some((oldest, ())) = self.finished.insert(*key, (), now) {
                    self.remove(&oldest, now);
                }
            }
            Some(End::Reset) => {
                self.queue.push(Event::Reset { flow: id });
                self.remove(key, now);
            }
            _ => {}
        }
    }

    fn lose(&mut self, key: &FlowKey, now: Instant) {
        if let Some(flow) = self.remove(key, now) {
            self.counts.lost += 1;
            self.queue.push(Event::Lost { flow: flow.id });
            self.verdict(Verdict::Ignore(*key));
        }
    }

    fn remove(&mut self, key: &FlowKey, now: Instant) -> Option<Flow> {
        let flow = self.table.remove(key)?;
        self.waiting -= flow.stream.held();
        self.keys.remove(&flow.id);
        self.finished.remove(key);
        self.over.insert(*key, (), now);
        Some(flow)
    }

    fn verdict(&mut self, verdict: Verdict) {
        if self.verdicts.len() < VERDICTS {
            self.verdicts.push(verdict);
        }
    }
}
