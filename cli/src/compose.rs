//! Services of a compose project in the places of targets.
//!
//! ```text
//!   docker compose up ──► mirrord compose up ──► session, in the background
//!         ▲                      │
//!         └── JSON lines ────────┘     compose's protocol for providers of services
//! ```

mod call;
mod found;
mod messages;
mod network;
mod provider;
mod service;
mod version;

pub use self::provider::run as run_provider;
