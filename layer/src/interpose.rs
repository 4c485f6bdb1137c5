//! The exported symbols, which a program finds before libc's, and libc's behind them.

#[macro_use]
mod original;

mod exec;
mod misc;
pub mod names;
mod sockets;

pub use original::{Original, errno, set_errno};
pub use sockets::Libc;
