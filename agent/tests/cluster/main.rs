//! The agent as it runs in a cluster, on the real kernel: born with a listener, it serves targets
//! that it was not born beside.
//!
//! They need root: without it they fail where `CI=true`, and are skipped loudly elsewhere.
#![allow(clippy::unwrap_used, missing_docs)]

mod agent;
#[path = "../../../netns/tests/kernel/container.rs"]
mod container;
mod peer;
mod refusals;
mod targets;
