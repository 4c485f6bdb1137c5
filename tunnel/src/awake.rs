//! Keeps the thread awake for a moment after a small message has passed.
//!
//! An answer often follows its question within microseconds, and a processor that has gone idle
//! meanwhile takes longer to come back than the answer took. So the thread looks again and again
//! instead of sleeping, as `SO_BUSY_POLL` does for a network card (socket(7)): but only as long as
//! that finds something, so that what never answers soon costs nothing, and as long as nobody else
//! wants the processor.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// For so long it is looked for the next message.
const MOMENT: Duration = Duration::from_micros(50);
/// Larger pieces are part of a flow, where whoever sends needs the processor more.
const SMALL: usize = 4 << 10;
/// So often nothing may come before it is not looked any more,
const PATIENCE: u32 = 8;
/// but for one message in so many.
const TRIAL: u32 = 64;
/// Whoever offers the processor to others has it back sooner if there is nobody.
const ALONE: Duration = Duration::from_micros(5);

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
            WATCH.with(Watch::offer);
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
        if self.watching.get() && self.last.get().is_none_or(|last| last.elapsed() >= MOMENT) {
            self.watching.set(false);
            self.patience.set(self.patience.get().saturating_sub(1));
        }
        self.watching.get()
    }

    /// Lets others run; where there are any, it is looked no more than now and then.
    fn offer(&self) {
        let offered = Instant::now();
        thread::yield_now();
        if offered.elapsed() > ALONE {
            self.watching.set(false);
            self.patience.set(0);
        }
    }
}
