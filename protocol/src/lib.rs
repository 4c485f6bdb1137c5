//! What crosses a pipe, as pure values: no I/O, no policy.
//!
//! ```text
//!  CLI ── control (JSON lines) ──► proxy ══ frame (WebSocket messages) ══► agent ◄── control ── CLI
//! ```

#![forbid(unsafe_code)]

pub mod control;
pub mod frame;
pub mod token;

pub use token::Token;
