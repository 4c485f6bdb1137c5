//! One stream's numbers: offsets, windows and what has ended. Pure.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mirrord_protocol::frame::{Errno, INITIAL_WINDOW};

use crate::handed::Handed;

/// No stream gets a larger window: bytes that one slow reader can make us hold.
const MAX_WINDOW: u64 = 4 << 20;

/// Fewer bytes are copied while they wait.
const SMALL: usize = 4 << 10;

/// How a stream ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The far end could not be connected.
    Refused(Errno),
    /// The far end, or the whole tunnel, is gone.
    Reset,
}

/// What a peer did that no honest peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes are missing or doubled.
    #[error("stream data at offset {got}, not {expected}")]
    Offset {
        /// Where it should have been.
        expected: u64,
        /// Where it was.
        got: u64,
    },
    /// More bytes than were asked for.
    #[error("stream data beyond its window")]
    Window,
    /// Bytes behind the end.
    #[error("stream data behind its end")]
    AfterEnd,
    /// A stream with an id that is in use, or not the peer's to give.
    #[error("stream id {0} is not the peer's to open")]
    Id(u32),
    /// It claims to have frames that were not sent, or to lack what it had.
    #[error("{0} frames can't have been received")]
    Number(u64),
    /// It asks and asks, and takes no answer.
    #[error("the other end does not take what it asks for")]
    Flood,
    /// What belongs beside a frame did not come.
    #[error("a connection was to come beside a frame, and did not")]
    Descriptor,
}

/// One stream, seen from one end.
pub(crate) struct State {
    /// The next byte that we send has this offset.
    pub(crate) sent: u64,
    /// We may send bytes below this offset.
    send_limit: u64,
    /// The peer has handed on every byte below this offset.
    acknowledged: u64,
    /// Whether our end was sent.
    pub(crate) fin_sent: bool,
    /// The next byte that comes has this offset.
    received: u64,
    /// Every byte below this offset was handed on.
    consumed: u64,
    /// What we have allowed the peer to send.
    limit: u64,
    window: u64,
    granted_at: Instant,
    pub(crate) queue: VecDeque<Bytes>,
    pub(crate) fin_received: bool,
    pub(crate) opened: bool,
    /// The far end itself: nothing goes through the tunnel.
    pub(crate) handed: Option<Handed>,
    pub(crate) broken: Option<Broken>,
    /// The tunnel ended after the peer's end had come.
    pub(crate) orphaned: bool,
    /// Bytes that come are thrown away.
    pub(crate) discard: bool,
    pub(crate) waker: Option<Waker>,
    pub(crate) on_datagram: Option<Box<dyn Fn(Bytes)>>,
    pub(crate) on_refusal: Option<Box<dyn FnOnce(Errno)>>,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            sent: 0,
            send_limit: INITIAL_WINDOW,
            acknowledged: 0,
            fin_sent: false,
            received: 0,
            consumed: 0,
            limit: INITIAL_WINDOW,
            window: INITIAL_WINDOW,
            granted_at: Instant::now(),
            queue: VecDeque::new(),
            fin_received: false,
            opened: false,
            handed: None,
            broken: None,
            orphaned: false,
            discard: false,
            waker: None,
            on_datagram: None,
            on_refusal: None,
        }
    }

    /// How many bytes we may send now.
    pub(crate) fn send_room(&self) -> usize {
        usize::try_from(self.send_limit.saturating_sub(self.sent)).unwrap_or(usize::MAX)
    }

    /// The peer has handed bytes on, and takes more.
    pub(crate) fn extend(&mut self, consumed: u64, limit: u64) {
        self.acknowledged = self.acknowledged.max(consumed.min(self.sent));
        if limit > self.send_limit {
            self.send_limit = limit;
            self.wake();
        }
    }

    /// Whether everything was sent, to the end, and the peer has handed it on. Datagrams are never
    /// waited for.
    pub(crate) fn is_delivered(&self) -> bool {
        let datagrams = self.on_datagram.is_some();
        datagrams || self.broken.is_some() || (self.fin_sent && self.acknowledged == self.sent)
    }

    /// What to tell the peer once everything that it sent was handed on.
    pub(crate) fn last_grant(&self) -> (u64, u64) {
        (self.consumed, self.limit)
    }

    /// Bytes have come.
    pub(crate) fn receive(&mut self, offset: u64, bytes: Bytes) -> Result<(), Violation> {
        if self.broken.is_some() {
            return Ok(());
        }
        if self.fin_received {
            return Err(Violation::AfterEnd);
        }
        if offset != self.received {
            return Err(Violation::Offset { expected: self.received, got: offset });
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.limit {
            return Err(Violation::Window);
        }
        self.received = end;
        if !bytes.is_empty() && !self.discard {
            // It is a part of a buffer, all of which stays as long as a part does.
            let bytes = if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes };
            self.queue.push_back(bytes);
            self.wake();
        }
        Ok(())
    }

    /// The peer sends no more.
    pub(crate) fn receive_fin(&mut self, offset: u64) -> Result<(), Violation> {
        if self.broken.is_some() {
            return Ok(());
        }
        if offset != self.received {
            return Err(Violation::Offset { expected: self.received, got: offset });
        }
        self.fin_received = true;
        self.wake();
        Ok(())
    }

    /// The bytes that were thrown away count as consumed.
    pub(crate) fn discarded(&mut self, rtt: Duration) -> Option<(u64, u64)> {
        let bytes = self.received - self.consumed;
        self.consume(bytes, rtt)
    }

    /// So many bytes were handed on. Returns what to grant the peer, once it is worth a frame.
    ///
    /// The window doubles as long as the reader drains it faster than a grant takes to travel:
    /// only then does it hold the sender back.
    pub(crate) fn consume(&mut self, bytes: u64, rtt: Duration) -> Option<(u64, u64)> {
        self.consumed += bytes;
        let left = self.limit - self.consumed;
        if left > self.window / 2 || self.fin_received {
            return None;
        }
        let drained = self.queue.is_empty();
        if drained && self.granted_at.elapsed() < 2 * rtt && self.window < MAX_WINDOW {
            self.window *= 2;
        }
        self.granted_at = Instant::now();
        self.limit = self.consumed + self.window;
        Some((self.consumed, self.limit))
    }

    /// The far end has come itself.
    pub(crate) fn hand(&mut self, handed: Handed) {
        self.opened = true;
        self.handed = Some(handed);
        self.wake();
    }

    /// The stream ends before its time; what had come before is still there.
    pub(crate) fn fail(&mut self, how: Broken) {
        self.broken.get_or_insert(how);
        self.wake();
    }

    /// The tunnel is gone. What the peer has sent to the end is still handed on.
    pub(crate) fn orphan(&mut self) {
        if self.fin_received {
            self.orphaned = true;
            self.wake();
        } else {
            self.fail(Broken::Reset);
        }
    }

    /// Whoever waits for this stream looks again.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether nothing will come or go any more.
    pub(crate) fn is_over(&self) -> bool {
        self.broken.is_some() || (self.fin_sent && self.fin_received && self.queue.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::ZERO;

    fn bytes(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    #[test]
    fn a_byte_too_many_is_a_violation() {
        let mut state = State::new();
        let window = usize::try_from(INITIAL_WINDOW).unwrap();
        state.receive(0, bytes(window)).unwrap();
        assert_eq!(state.receive(INITIAL_WINDOW, bytes(1)), Err(Violation::Window));
    }

    #[test]
    fn a_gap_a_repeat_and_a_byte_behind_the_end_are_violations() {
        let mut state = State::new();
        state.receive(0, bytes(10)).unwrap();
        for offset in [11, 9, 0] {
            let error = Violation::Offset { expected: 10, got: offset };
            assert_eq!(state.receive(offset, bytes(1)), Err(error));
            assert_eq!(state.receive_fin(offset), Err(error));
        }
        state.receive_fin(10).unwrap();
        assert_eq!(state.receive(10, bytes(1)), Err(Violation::AfterEnd));
    }

    #[test]
    fn a_slow_reader_is_granted_only_what_it_read() {
        let mut state = State::new();
        state.receive(0, bytes(1000)).unwrap();
        assert_eq!(state.consume(1000, RTT), None, "too little to be worth a frame");
        let half = INITIAL_WINDOW / 2;
        state.receive(1000, bytes(usize::try_from(half).unwrap())).unwrap();
        let grant = state.consume(half, RTT).unwrap();
        assert_eq!(grant, (1000 + half, 1000 + half + INITIAL_WINDOW));
    }

    #[test]
    fn a_reader_that_drains_faster_than_grants_travel_gets_a_larger_window() {
        let mut state = State::new();
        let hour = Duration::from_secs(3600);
        for _ in 0..20 {
            let room = state.limit - state.received;
            state.receive(state.received, bytes(usize::try_from(room).unwrap())).unwrap();
            state.queue.clear();
            state.consume(room, hour).unwrap();
        }
        assert_eq!(state.window, MAX_WINDOW);
    }
}
