//! What stands in for libc's functions, each by its symbol (see `table`), and libc's behind them.

#[macro_use]
mod original;

pub mod exec;
pub mod misc;
pub mod names;
pub mod sockets;

#[cfg(feature = "frida")]
pub use exec::{lists, shell, spawn};
#[cfg(feature = "frida")]
pub use names::{hosts, resolver, reverse, system};
pub use original::{Original, errno, set_errno};
