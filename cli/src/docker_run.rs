//! `docker run`, read as docker reads it.
//!
//! ```text
//!  words ──parse──► DockerRun ──place──► Rehomed (the sidecar's) + the words that docker gets
//!            ▲                     ▲
//!          table: every flag, its grammar and its place
//!          client: in what podman differs
//! ```

pub mod client;
pub mod env_file;
pub mod network;
pub mod parse;
pub mod ports;
pub mod rehome;
pub mod table;
mod values;

#[cfg(test)]
mod client_tests;

pub use client::Client;
pub use parse::{DockerRun, Line};
pub use rehome::Rehomed;
