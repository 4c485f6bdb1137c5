//! Services of a compose project in the places of targets.
//!
//! ```text
//!   mirrord docker compose up ──► overlay (mirrord-compose) ──► becomes docker compose up
//!                                                                        │
//!   docker compose up ──► mirrord compose up (provider) ◄────────────────┘
//!         ▲                      ├──► session, in the background
//!         └──── JSON lines ──────┘     compose's protocol for providers of services
//! ```

mod app;
mod call;
pub mod found;
mod line;
mod messages;
mod network;
mod once;
mod project;
mod provider;
mod request;
mod service;
mod told;
mod version;
mod wanted;
mod wrapper;

pub use self::line::Line;
pub use self::provider::run as run_provider;
pub use self::wrapper::{Wrapped, run as wrap};
