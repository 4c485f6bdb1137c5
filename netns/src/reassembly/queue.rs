//! Events that nobody has taken yet.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Event, FlowId, FlowKey};

/// What an event costs to keep besides its bytes.
const OVERHEAD: usize = size_of::<Event>() + 64;

/// Events in their order, bounded by the bytes that they keep.
#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    held: usize,
    events: VecDeque<Event>,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, held: 0, events: VecDeque::new() }
    }

    /// Bytes that are kept.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Adds an event that wants room; false if there is none.
    pub(super) fn offer(&mut self, event: Event) -> bool {
        let room = self.held.saturating_add(cost(&event)) <= self.limit;
        if room {
            self.push(event);
        }
        room
    }

    /// Adds an event that says that a flow is over. There is at most one for each that is kept
    /// or followed, so these need no limit of their own.
    pub(super) fn push(&mut self, event: Event) {
        self.held += cost(&event);
        self.events.push_back(event);
    }

    /// The next event.
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.held -= cost(&event);
        if self.events.is_empty() && self.events.capacity() > 4096 {
            self.events = VecDeque::new();
        }
        Some(event)
    }

    /// Takes out all events of a flow.
    pub(super) fn forget(&mut self, flow: FlowId) {
        let held = &mut self.held;
        self.events.retain(|event| {
            let keep = event.flow() != Some(flow);
            if !keep {
                *held -= cost(event);
            }
            keep
        });
    }
}

impl Event {
    pub(super) fn opened(flow: FlowId, key: FlowKey) -> Self {
        Self::Opened { flow, client: key.client, server: key.server }
    }

    pub(super) fn datagram(key: FlowKey, payload: Bytes) -> Self {
        Self::Datagram { client: key.client, server: key.server, payload }
    }
}

fn cost(event: &Event) -> usize {
    let bytes = match event {
        Event::Data { bytes, .. } => bytes.len(),
        Event::Datagram { payload, .. } => payload.len(),
        _ => 0,
    };
    bytes + OVERHEAD
}
