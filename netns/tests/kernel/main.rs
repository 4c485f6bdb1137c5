//! The crate on the real kernel, each test in fresh network namespaces.
//!
//! They need root: without it they fail where `CI=true`, and are skipped loudly elsewhere.
#![allow(clippy::unwrap_used, missing_docs)]

mod calls;
mod container;
mod echo;
mod enter;
mod identity;
mod incoming;
mod mesh;
mod outgoing;
mod plan;
mod scan;
mod steal;
mod support;
mod udp;
