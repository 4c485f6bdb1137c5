//! A compose project's model in, a model out: what of a service belongs to the network that it is
//! in, and what has to be said on top of a project for services to stand in the places of targets.
//!
//! ```text
//!   a service's definition ──► Part            what the owner of its network has in its place
//!   the same ────────────────► alone           a project of it alone, in that network
//!   a resolved project ──────► Overlay         one more file for compose, none of the user's words in it
//! ```
//!
//! Nothing here reads a file, runs compose or prints.

#![forbid(unsafe_code)]

mod alone;
mod overlay;
mod part;

pub use alone::{Addition, AloneError, SESSION_LABEL, Whole, alone, whole};
pub use overlay::{Change, Overlay, Refusal, Stand, Wanted};
pub use part::{Joined, KEYS, Part, PartError, Port};
