//! The capture on the real kernel: a target and a client, each in a namespace of its own.
//!
//! They need root: without it they fail where `CI=true`, and are skipped loudly elsewhere.
#![allow(clippy::unwrap_used, missing_docs)]

mod connections;
mod datagrams;
mod plain;
mod record;
mod support;
mod transfers;
