//! Puts IP fragments together again.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::packet::{Fragment, Whole};

/// The longest packet that fragments can make.
const MAX_LEN: usize = 65_535;

/// What a fragment costs to keep besides its bytes.
const OVERHEAD: usize = 128;

/// Packets that can be incomplete at the same time.
const MAX_PARTIAL: usize = 256;

/// How long the rest of a packet may take; what comes later is not the same packet any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Packets of which some fragments have not come yet.
#[derive(Debug)]
pub(super) struct Fragments {
    limit: usize,
    held: usize,
    partial: HashMap<Whole, Partial>,
    dropped: u64,
}

/// The fragments of one packet.
#[derive(Debug)]
struct Partial {
    pieces: BTreeMap<usize, Bytes>,
    /// The length of the whole, known from its last fragment.
    total: Option<usize>,
    /// Bytes so far.
    len: usize,
    since: Instant,
}

/// How a fragment goes with those that came before.
enum Fit {
    Added,
    Again,
    Contradicts,
}

impl Fragments {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, held: 0, partial: HashMap::new(), dropped: 0 }
    }

    /// Fragments that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a fragment, and gives the whole back when it was the last that was missing.
    pub(super) fn insert(
        &mut self,
        fragment: &Fragment,
        data: Bytes,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let end = fragment.offset + data.len();
        let ragged = fragment.more && !data.len().is_multiple_of(8);
        if data.is_empty() || end > MAX_LEN || ragged {
            self.dropped += 1;
            return None;
        }
        self.make_room(fragment.whole, data.len() + OVERHEAD, now);
        let partial = self.partial.entry(fragment.whole).or_insert_with(|| Partial {
            pieces: BTreeMap::new(),
            total: None,
            len: 0,
            since: now,
        });
        let len = data.len();
        match partial.add(fragment, end, data) {
            Fit::Added => self.held += len + OVERHEAD,
            Fit::Again => return None,
            Fit::Contradicts => {
                self.dropped += 1;
                self.forget(fragment.whole);
                return None;
            }
        }
        if partial.total != Some(partial.len) {
            return None;
        }
        let partial = self.partial.remove(&fragment.whole)?;
        self.held -= partial.held();
        Some(partial.join())
    }

    /// Forgets packets whose rest has not come in time.
    pub(super) fn expire(&mut self, now: Instant) {
        let late = |partial: &Partial| now.saturating_duration_since(partial.since) >= PATIENCE;
        let wholes = self.partial.iter().filter(|(_, partial)| late(partial));
        for whole in wholes.map(|(whole, _)| *whole).collect::<Vec<_>>() {
            self.forget(whole);
        }
    }

    fn make_room(&mut self, whole: Whole, len: usize, now: Instant) {
        if self.is_full(whole, len) {
            self.expire(now);
        }
        while self.is_full(whole, len) {
            let oldest = self.partial.iter().min_by_key(|(_, partial)| partial.since);
            let Some((whole, _)) = oldest else {
                return;
            };
            self.forget(*whole);
        }
    }

    fn is_full(&self, whole: Whole, len: usize) -> bool {
        let new = !self.partial.contains_key(&whole);
        self.held + len > self.limit || (new && self.partial.len() >= MAX_PARTIAL)
    }

    fn forget(&mut self, whole: Whole) {
        if let Some(partial) = self.partial.remove(&whole) {
            self.held -= partial.held();
            self.dropped += partial.pieces.len() as u64;
        }
    }
}

impl Partial {
    fn add(&mut self, fragment: &Fragment, end: usize, data: Bytes) -> Fit {
        let before = self.pieces.range(..=fragment.offset).next_back();
        if before.is_some_and(|(at, piece)| *at == fragment.offset && *piece == data) {
            return Fit::Again;
        }
        let overlaps = before.is_some_and(|(at, piece)| at + piece.len() > fragment.offset)
            || self.pieces.range(fragment.offset..end).next().is_some();
        let last = self.pieces.last_key_value();
        let reach = last.map_or(0, |(at, piece)| at + piece.len());
        let total = match (self.total, fragment.more) {
            (Some(total), true) => end <= total,
            (Some(total), false) => end == total,
            (None, true) => true,
            (None, false) => reach <= end,
        };
        if overlaps || !total {
            return Fit::Contradicts;
        }
        if !fragment.more {
            self.total = Some(end);
        }
        self.len += data.len();
        self.pieces.insert(fragment.offset, data);
        Fit::Added
    }

    fn join(&self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.len);
        for piece in self.pieces.values() {
            whole.extend_from_slice(piece);
        }
        whole
    }

    fn held(&self) -> usize {
        self.len + self.pieces.len() * OVERHEAD
    }
}
