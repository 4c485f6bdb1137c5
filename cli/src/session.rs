//! A session: one sidecar, one agent, one tunnel, and a process of its own that keeps them.
//!
//! ```text
//!   front ── plan, then commands ──► keeper ══ engine's API ══► sidecar (proxy), agent
//!         ◄──────── events ─────────
//! ```
//!
//! The keeper is a process apart, so that a front that is killed still has somebody who cleans up
//! after it; and a keeper that is killed has the front.

mod beside;
pub mod bring_up;
pub mod containers;
pub mod events;
mod far;
pub mod id;
pub mod keeper;
pub mod plan;
pub mod remote;

pub use id::SessionId;
pub use plan::Plan;
