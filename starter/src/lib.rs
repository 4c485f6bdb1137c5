//! What an agent's pod begins with: a static program of a few tens of kilobytes that needs nothing
//! of its image, waits on 127.0.0.1 for the real one, and becomes it.
//!
//! ```text
//!  wire       what both ends agree on
//!  run        the loop: who is heard, until when
//!  arguments  what it is told        door       who comes, and who shows the token
//!  digest     SHA-256                reception  the program on its way into memory
//!  text       sentences              sys        the kernel, without a libc
//! ```

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

mod arguments;
mod digest;
mod door;
mod reception;
mod run;
mod sys;
mod text;
pub mod wire;

pub use run::run;
pub use sys::Start;
#[cfg(feature = "program")]
pub use sys::exit;
