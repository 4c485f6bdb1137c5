//! One direction of one TCP connection: sequence numbers in, bytes in order out.

use std::{collections::BTreeMap, ops::Range, time::Instant};

use bytes::Bytes;

use super::packet::Frame;

/// What a segment costs to keep besides its bytes.
const OVERHEAD: usize = 128;

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
}

/// The bytes of a client, as far as they have come.
///
/// Places are counted from the first byte of the stream, so that they do not wrap around as
/// sequence numbers do.
#[derive(Debug)]
pub(super) struct Stream {
    /// The sequence number of the byte at `next`.
    seq: u32,
    /// The place up to which everything was handed out.
    next: i64,
    /// What came too early, by place; the pieces do not overlap.
    waiting: BTreeMap<i64, Bytes>,
    /// The bytes in `waiting`, overhead included.
    held: usize,
    /// Where the stream ends, when that is known.
    end: Option<(i64, End)>,
    /// Since when something waits for the byte at `next`.
    hole: Option<Instant>,
}

impl Stream {
    /// A stream whose first byte has this sequence number.
    pub(super) fn new(seq: u32) -> Self {
        Self { seq, next: 0, waiting: BTreeMap::new(), held: 0, end: None, hole: None }
    }

    /// Memory that early pieces take.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Since when something waits for a byte that has not come.
    pub(super) fn hole(&self) -> Option<Instant> {
        self.hole
    }

    /// Takes a part of a frame whose first byte has this sequence number, and hands out what is
    /// in order now. Of bytes that come more than once the first copy wins.
    pub(super) fn insert(
        &mut self,
        seq: u32,
        frame: &Frame<'_>,
        part: Range<usize>,
        out: &mut impl FnMut(Bytes),
    ) {
        let first = self.place(seq);
        let limit = self.end.map_or(i64::MAX, |(place, _)| place);
        let start = first.max(self.next);
        let stop = first.saturating_add(part.len() as i64).min(limit);
        if start >= stop {
            return;
        }
        let within = |place: i64| part.start + (place - first) as usize;
        if start == self.next && self.waiting.is_empty() {
            self.advance(stop - start);
            out(frame.share(within(start)..within(stop)));
            return;
        }
        for gap in self.gaps(start, stop) {
            let piece = frame.copy(within(gap.start)..within(gap.end));
            self.held += piece.len() + OVERHEAD;
            self.waiting.insert(gap.start, piece);
        }
        while let Some(piece) = self.waiting.remove(&self.next) {
            self.held -= piece.len() + OVERHEAD;
            self.advance(piece.len() as i64);
            out(piece);
        }
    }

    /// Notes that the client has sent nothing at or after this sequence number.
    pub(super) fn finish(&mut self, seq: u32) {
        let place = self.place(seq);
        let last = self.waiting.last_key_value();
        let beyond = last.is_some_and(|(start, piece)| start + piece.len() as i64 > place);
        if self.end.is_none() && place >= self.next && !beyond {
            self.end = Some((place, End::Fin));
        }
    }

    /// Notes a reset with this sequence number. One that lies before what has come already is
    /// none; one that lies ahead takes effect once all before it has come.
    pub(super) fn reset(&mut self, seq: u32) {
        let place = self.place(seq);
        let known = self.end.map_or(i64::MAX, |(end, _)| end);
        if place < self.next || place > known.saturating_add(1) {
            return;
        }
        let place = place.min(known);
        self.end = Some((place, End::Reset));
        for piece in self.waiting.split_off(&place).into_values() {
            self.held -= piece.len() + OVERHEAD;
        }
    }

    /// The end of the stream, once everything before it was handed out.
    pub(super) fn ended(&self) -> Option<End> {
        let (place, end) = self.end?;
        (place <= self.next).then_some(end)
    }

    /// Looks whether there is a hole at this moment; one that was filled and left another one
    /// behind counts anew.
    pub(super) fn watch(&mut self, progress: bool, now: Instant) {
        let open = !self.waiting.is_empty() || self.end.is_some_and(|(place, _)| place > self.next);
        self.hole = match self.hole {
            _ if !open => None,
            Some(since) if !progress => Some(since),
            _ => Some(now),
        };
    }

    /// Whether something has come of all that lies before this sequence number, or after it.
    pub(super) fn reaches(&self, seq: u32) -> bool {
        let place = self.place(seq);
        let last = self.waiting.last_key_value();
        let last = last.map_or(self.next, |(start, piece)| start + piece.len() as i64);
        self.end.is_some_and(|(end, _)| place <= end + 1) || place <= last
    }

    /// The place up to which everything was handed out.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// The place that a sequence number stands for: of all that it can mean, the one nearest to
    /// where the stream is.
    fn place(&self, seq: u32) -> i64 {
        self.next + i64::from(seq.wrapping_sub(self.seq).cast_signed())
    }

    fn advance(&mut self, by: i64) {
        self.next += by;
        self.seq = self.seq.wrapping_add(by as u32);
    }

    /// What of a range of places nothing has come for yet.
    fn gaps(&self, start: i64, stop: i64) -> Vec<Range<i64>> {
        let before = self.waiting.range(..start).next_back();
        let mut at = before.map_or(start, |(place, piece)| start.max(place + piece.len() as i64));
        let mut gaps = Vec::new();
        for (place, piece) in self.waiting.range(start..stop) {
            if *place > at {
                gaps.push(at..*place);
            }
            at = at.max(place + piece.len() as i64);
        }
        if at < stop {
            gaps.push(at..stop);
        }
        gaps
    }
}
