//! Go's entry to the kernel: what a Go program does instead of calling libc.
//!
//! ```text
//!   Go ──► Syscall6 ──jump──► entry ── number is none of ours ──► back into Syscall6
//!                               │
//!                               └─ a stack of ours ──► answer ──► detours, exec
//! ```
//!
//! Goroutines' stacks are small, so that what is more than a comparison runs on another one. To Go
//! it all looks like a system call: its signal handlers have their own stack, and code that it does
//! not know is never preempted.
//!
//! For amd64 alone; a Go program on another machine is left as it is.

#[cfg(target_arch = "x86_64")]
mod answer;
#[cfg(target_arch = "x86_64")]
mod entry;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod program;

#[cfg(target_arch = "x86_64")]
pub use answer::answer;
#[cfg(target_arch = "x86_64")]
pub use entry::{address, resume_at};
#[cfg(target_arch = "x86_64")]
pub use program::program;

/// The path of the program's own file, if what runs is a rewritten copy of it.
#[cfg(not(target_arch = "x86_64"))]
pub fn program() -> Option<&'static [u8]> {
    None
}
