//! A bounded map that forgets its oldest entries first.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::FlowKey;

/// Something about a pair of ends, remembered for a while.
#[derive(Debug)]
pub(super) struct Aged<V> {
    limit: usize,
    entries: HashMap<FlowKey, Entry<V>>,
    /// The entries by age; those whose stamp is no longer true are leftovers.
    order: VecDeque<(FlowKey, u64)>,
    stamp: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    at: Instant,
    stamp: u64,
}

impl<V> Aged<V> {
    /// An empty map that holds at most so many entries, but at least one.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), entries: HashMap::new(), order: VecDeque::new(), stamp: 0 }
    }

    pub(super) fn get(&self, key: &FlowKey) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(super) fn contains(&self, key: &FlowKey) -> bool {
        self.entries.contains_key(key)
    }

    /// Adds an entry as the youngest, and gives back the oldest if there was no room for both.
    pub(super) fn insert(&mut self, key: FlowKey, value: V, now: Instant) -> Option<(FlowKey, V)> {
        self.remove(&key);
        let oldest = match self.entries.len() < self.limit {
            true => None,
            false => self.pop(),
        };
        self.stamp += 1;
        self.order.push_back((key, self.stamp));
        let entry = Entry { value, at: now, stamp: self.stamp };
        self.entries.insert(key, entry);
        oldest
    }

    pub(super) fn remove(&mut self, key: &FlowKey) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.tidy();
        Some(entry.value)
    }

    /// Takes out the oldest entry if it is older than that.
    pub(super) fn pop_older(&mut self, age: Duration, now: Instant) -> Option<(FlowKey, V)> {
        while let Some((key, stamp)) = self.order.front() {
            let entry = self.entries.get(key).filter(|entry| entry.stamp == *stamp);
            if entry.is_some_and(|entry| now.saturating_duration_since(entry.at) < age) {
                return None;
            }
            let live = entry.is_some();
            let (key, _) = self.order.pop_front()?;
            if live {
                let entry = self.entries.remove(&key)?;
                return Some((key, entry.value));
            }
        }
        None
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn pop(&mut self) -> Option<(FlowKey, V)> {
        loop {
            let (key, stamp) = self.order.pop_front()?;
            if self.entries.get(&key).is_some_and(|entry| entry.stamp == stamp) {
                let entry = self.entries.remove(&key)?;
                return Some((key, entry.value));
            }
        }
    }

    /// Drops leftovers of `order` before they outnumber what it stands for.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.order
                .retain(|(key, stamp)| entries.get(key).is_some_and(|entry| entry.stamp == *stamp));
        }
    }
}
