//! A session: one proxy, its agents and tunnels, and a process of its own that keeps them.
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
mod carry;
pub mod containers;
pub mod desk;
mod door;
pub mod events;
mod far;
pub mod here;
pub mod id;
pub mod keeper;
mod place;
pub mod plan;
pub mod plane;
pub mod record;
pub mod remote;
pub mod standing;
pub mod words;

pub use id::SessionId;
pub use plan::Plan;
