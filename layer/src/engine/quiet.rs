//! The C library at work for a hook. What it calls meanwhile is replaced as well, and is not to be
//! answered in its place: a name that stays on this machine is asked of this machine's name server,
//! and a program that was prepared once is executed.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many threads are. Asked first, for a thread of Go without cgo has no memory of its own as libc
/// sets it up, and never is.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// As long as it lives, the calling thread's calls are the C library's. Never where the call may not
/// return: a child that shares its parent's memory (vfork(2)) shares this as well.
pub struct Quiet(());

impl Quiet {
    /// Begins.
    pub fn begin() -> Self {
        THREADS.fetch_add(1, Ordering::Relaxed);
        DEPTH.set(DEPTH.get().wrapping_add(1));
        Self(())
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().wrapping_sub(1));
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the calling thread is at work for a hook.
pub fn is_quiet() -> bool {
    THREADS.load(Ordering::Relaxed) != 0 && DEPTH.get() != 0
}
