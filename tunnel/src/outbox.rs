//! What waits to be written to the pipe.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::kept::{Item, Kept};
use crate::state::Violation;

/// Above so many bytes the streams stop reading from their sockets.
const HIGH_WATER: usize = 512 << 10;
/// The same for bytes that have left and may have to leave again.
const MAX_KEPT: usize = 8 << 20;
/// So many bytes wait or are kept at most for a peer that does what it should: whoever asks and asks
/// and reads no answer is not served any more.
const FLOOD: usize = 8 * MAX_KEPT;
/// What a frame takes beside its bytes.
const FRAME: usize = 128;
/// So many frames of the pipe may wait.
const MAX_PASSING: usize = 16;

/// Frames in the order in which they leave: those of the pipe first, then what the last pipe may
/// have lost, then urgent ones.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    passing: VecDeque<Bytes>,
    kept: Kept,
    urgent: VecDeque<Item>,
    frames: VecDeque<Item>,
    /// Bytes that wait in `urgent` and `frames`.
    waiting: usize,
    /// Bytes that were popped and not yet flushed.
    unflushed: usize,
    writer: Option<Waker>,
    blocked: VecDeque<Waker>,
    /// How often the blocked ones were woken.
    round: u64,
    closing: bool,
    closed: bool,
}

/// A stream's place among the blocked ones: it queues once a round.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Option<u64>);

/// What the writer is to do.
#[derive(Debug)]
pub(crate) enum Next {
    /// Write this.
    Frame(Item),
    /// There is nothing now.
    Nothing,
    /// There will be nothing any more.
    Close,
}

impl Outbox {
    /// Queues a frame behind those of its stream.
    pub(crate) fn push(&self, frame: Bytes) {
        self.inner.borrow_mut().add(frame.into(), |inner| &mut inner.frames);
    }

    /// The same, with a descriptor that goes beside it.
    pub(crate) fn push_with(&self, bytes: Bytes, descriptor: OwnedFd) {
        let frame = Item { bytes, descriptor: Some(Rc::new(descriptor)) };
        self.inner.borrow_mut().add(frame, |inner| &mut inner.frames);
    }

    /// Queues a frame that may overtake all others.
    pub(crate) fn push_urgent(&self, frame: Bytes) {
        self.inner.borrow_mut().add(frame.into(), |inner| &mut inner.urgent);
    }

    /// Queues a frame of the present pipe, which is lost with it.
    pub(crate) fn push_passing(&self, frame: Bytes) {
        let mut inner = self.inner.borrow_mut();
        // Of a peer that asks and does not read, what is old is of no use.
        if inner.passing.len() >= MAX_PASSING {
            inner.passing.pop_front();
        }
        inner.passing.push_back(frame);
        inner.wake_writer();
    }

    /// Whether a stream may add data; if not, it is woken when it may.
    pub(crate) fn poll_room(&self, cx: &Context<'_>, ticket: &mut Ticket) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        if inner.has_room() {
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
        let inner = self.inner.borrow();
        inner.waiting + inner.unflushed >= HIGH_WATER / 2
    }

    /// Whether a datagram may be added; otherwise it is to be dropped, as on any network. Streams
    /// that take all the room they get leave some to datagrams.
    pub(crate) fn takes_datagram(&self) -> bool {
        self.inner.borrow().waits_less_than(HIGH_WATER + HIGH_WATER / 4)
    }

    /// Whether the other end has asked for more than it takes.
    pub(crate) fn is_flooded(&self) -> bool {
        let inner = self.inner.borrow();
        let frames = inner.frames.len() + inner.urgent.len() + inner.kept.len();
        inner.waiting + inner.kept.bytes() + frames * FRAME > FLOOD
    }

    /// Whether everything has left.
    pub(crate) fn is_empty(&self) -> bool {
        let inner = self.inner.borrow();
        inner.waiting + inner.unflushed == 0 && !inner.kept.has_next()
    }

    /// What the writer does next.
    pub(crate) fn pop(&self) -> Next {
        let mut inner = self.inner.borrow_mut();
        let frame = inner.passing.pop_front().map(Item::from).or_else(|| inner.kept.next());
        if let Some(frame) = frame.or_else(|| inner.pop_new()) {
            inner.unflushed += frame.bytes.len();
            return Next::Frame(frame);
        }
        if inner.closing { Next::Close } else { Next::Nothing }
    }

    /// Waits until there is something for the writer to do.
    pub(crate) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        let something = inner.waiting > 0 || !inner.passing.is_empty() || inner.kept.has_next();
        if something || inner.closing {
            return Poll::Ready(());
        }
        inner.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// All that was popped has left: whoever waited for room is woken.
    pub(crate) fn flushed(&self) {
        self.inner.borrow_mut().unflushed = 0;
        self.wake_blocked();
    }

    /// The other end has every numbered frame below this number.
    pub(crate) fn acknowledged(&self, below: u64) -> Result<(), Violation> {
        self.inner.borrow_mut().kept.acknowledge(below)?;
        self.wake_blocked();
        Ok(())
    }

    /// There is another pipe, whose other end has every numbered frame below this number.
    pub(crate) fn rewind(&self, below: u64) -> Result<(), Violation> {
        {
            let mut inner = self.inner.borrow_mut();
            inner.passing.clear();
            inner.unflushed = 0;
            inner.kept.rewind(below)?;
        }
        self.wake_blocked();
        Ok(())
    }

    fn wake_blocked(&self) {
        let blocked = {
            let mut inner = self.inner.borrow_mut();
            if !inner.has_room() {
                return;
            }
            inner.round += 1;
            std::mem::take(&mut inner.blocked)
        };
        blocked.into_iter().for_each(Waker::wake);
    }

    /// What waits still leaves, and nothing after it.
    pub(crate) fn finish(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.closing = true;
        inner.wake_writer();
    }

    /// Whether something waits, or may have to leave again, beside which a descriptor goes.
    pub(crate) fn has_descriptors(&self) -> bool {
        let inner = self.inner.borrow();
        let waits = inner.frames.iter().any(|frame| frame.descriptor.is_some());
        waits || inner.kept.has_descriptors()
    }

    /// Whether nothing is to leave any more but what waits.
    pub(crate) fn is_finished(&self) -> bool {
        self.inner.borrow().closing
    }

    /// Waits until nothing leaves any more.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        if inner.closed {
            return Poll::Ready(());
        }
        inner.blocked.push_back(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing leaves any more.
    pub(crate) fn close(&self) {
        let blocked = {
            let mut inner = self.inner.borrow_mut();
            let blocked = std::mem::take(&mut inner.blocked);
            *inner = Inner { closed: true, ..Inner::default() };
            blocked
        };
        blocked.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn has_room(&self) -> bool {
        self.waits_less_than(HIGH_WATER)
    }

    fn waits_less_than(&self, most: usize) -> bool {
        self.waiting + self.unflushed < most && self.kept.bytes() < MAX_KEPT
    }

    fn pop_new(&mut self) -> Option<Item> {
        let frame = self.urgent.pop_front().or_else(|| self.frames.pop_front())?;
        self.waiting -= frame.bytes.len();
        self.kept.add(frame.clone());
        Some(frame)
    }

    fn add(&mut self, frame: Item, queue: impl FnOnce(&mut Self) -> &mut VecDeque<Item>) {
        if self.closed {
            return;
        }
        self.waiting += frame.bytes.len();
        queue(self).push_back(frame);
        self.wake_writer();
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
