//! Keeps the thread awake for a moment after a small message has passed.
//!
//! An answer often follows its question within microseconds, and a processor that has gone idle
//! meanwhile takes longer to come back than the answer took. So the thread looks again and again
//! instead of sleeping, as `SO_BUSY_POLL` does for a network card (socket(7)): but only as long as
//! that finds something, so that what never answers soon costs nothing.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// For so long it is looked for the next message.
const MOMENT: Duration = Duration::from_micros(50);
/// Larger pieces are part of a flow, where whoever sends needs the processor more.
const SMALL: usize = 4 << 10;
/// So often nothing may come before it is not looked any more,
const PATIENCE: u32 = 8;
/// but for one message in so many.
const TRIAL: u32 = 64;

thread_local! {
    static WATCH: Watch = Watch::default();
}

#[derive(Default)]
struct Watch {
    last: Cell<Option<Instant>>,
    watching: Cell<bool>,
    patience: Cell<u32>,
    messages: Cell<u32>,
    waker: RefCell<Option<Waker>>,
}

/// So many bytes have passed at once.
pub(crate) fn passed(len: usize) {
    if len <= SMALL {
        WATCH.with(Watch::message);
    }
}

/// Keeps the thread awake when that pays, as long as it is polled.
pub(crate) async fn keep() {
    loop {
        poll_fn(|cx| WATCH.with(|watch| watch.poll_begin(cx.waker()))).await;
        while WATCH.with(Watch::is_due) {
            tokio::task::yield_now().await;
        }
    }
}

impl Watch {
    fn message(&self) {
        if self.watching.get() {
            self.patience.set(PATIENCE);
            self.last.set(Some(Instant::now()));
            return;
        }
        self.messages.set(self.messages.get().wrapping_add(1));
        if self.patience.get() == 0 && !self.messages.get().is_multiple_of(TRIAL) {
            return;
        }
        if let Some(waker) = self.waker.take() {
            self.last.set(Some(Instant::now()));
            self.watching.set(true);
            waker.wake();
        }
    }

    fn poll_begin(&self, waker: &Waker) -> Poll<()> {
        if self.watching.get() {
            return Poll::Ready(());
        }
        self.waker.replace(Some(waker.clone()));
        Poll::Pending
    }

    fn is_due(&self) -> bool {
        let due = self.last.get().is_some_and(|last| last.elapsed() < MOMENT);
        if !due {
            self.watching.set(false);
            self.patience.set(self.patience.get().saturating_sub(1));
        }
        due
    }
}
