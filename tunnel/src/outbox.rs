//! What waits to be written to the pipe.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

/// Above so many bytes the streams stop reading from their sockets.
const HIGH_WATER: usize = 512 << 10;

/// Frames in the order in which they leave; urgent ones first.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    urgent: VecDeque<Bytes>,
    frames: VecDeque<Bytes>,
    /// Bytes that were pushed and not yet flushed.
    bytes: usize,
    writer: Option<Waker>,
    blocked: VecDeque<Waker>,
    /// How often the blocked ones were woken.
    round: u64,
    closed: bool,
}

/// A stream's place among the blocked ones: it queues once a round.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Option<u64>);

impl Outbox {
    /// Queues a frame behind those of its stream.
    pub(crate) fn push(&self, frame: Bytes) {
        self.inner.borrow_mut().add(frame, |inner| &mut inner.frames);
    }

    /// Queues a frame that may overtake all others.
    pub(crate) fn push_urgent(&self, frame: Bytes) {
        self.inner.borrow_mut().add(frame, |inner| &mut inner.urgent);
    }

    /// Whether a stream may add data; if not, it is woken when it may.
    pub(crate) fn poll_room(&self, cx: &Context<'_>, ticket: &mut Ticket) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        if inner.bytes < HIGH_WATER {
            return Poll::Ready(());
        }
        if ticket.0 != Some(inner.round) {
            ticket.0 = Some(inner.round);
            inner.blocked.push_back(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether the pipe is what everyone waits for: then a stream adds one frame at its turn.
    pub(crate) fn is_contended(&self) -> bool {
        self.inner.borrow().bytes >= HIGH_WATER / 2
    }

    /// Whether a datagram may be added; otherwise it is to be dropped, as on any network.
    pub(crate) fn has_room(&self) -> bool {
        self.inner.borrow().bytes < HIGH_WATER
    }

    /// Whether everything has left.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.borrow().bytes == 0
    }

    /// The next frame to write.
    pub(crate) fn pop(&self) -> Option<Bytes> {
        let mut inner = self.inner.borrow_mut();
        inner.urgent.pop_front().or_else(|| inner.frames.pop_front())
    }

    /// Waits until there is a frame to write.
    pub(crate) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        if inner.urgent.is_empty() && inner.frames.is_empty() {
            inner.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// So many bytes have left: whoever waited for room is woken.
    pub(crate) fn flushed(&self, bytes: usize) {
        let blocked = {
            let mut inner = self.inner.borrow_mut();
            inner.bytes = inner.bytes.saturating_sub(bytes);
            if inner.bytes >= HIGH_WATER {
                return;
            }
            inner.round += 1;
            std::mem::take(&mut inner.blocked)
        };
        blocked.into_iter().for_each(Waker::wake);
    }

    /// Nothing leaves any more.
    pub(crate) fn close(&self) {
        let blocked = {
            let mut inner = self.inner.borrow_mut();
            *inner = Inner {
                closed: true,
                blocked: std::mem::take(&mut inner.blocked),
                ..Inner::default()
            };
            std::mem::take(&mut inner.blocked)
        };
        blocked.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn add(&mut self, frame: Bytes, queue: impl FnOnce(&mut Self) -> &mut VecDeque<Bytes>) {
        if self.closed {
            return;
        }
        self.bytes += frame.len();
        queue(self).push_back(frame);
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
