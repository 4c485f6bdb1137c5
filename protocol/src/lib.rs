//! What crosses a pipe, as pure values: no I/O, no policy.
//!
//! ```text
//!  CLI ── control (JSON lines) ──► proxy ══ frame (WebSocket messages) ══► agent ◄── control ── CLI
//!                                    ▲
//!                  process ── layer ─┘
//! ```

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
pub mod control;
#[cfg(feature = "std")]
pub mod frame;
pub mod layer;
#[cfg(feature = "std")]
pub mod token;
pub mod unix;

#[cfg(feature = "std")]
pub use token::Token;
