//! Everything that takes a cluster: `make test-cluster`.
//!
//! One executable, so that few tests at a time share the cluster, and one of them can have it alone.

mod clean;
mod compose;
mod config;
mod cuts;
mod detached;
mod disturbed;
mod environment;
mod errors;
mod incoming;
mod names;
mod outgoing;
mod remote;
mod replicas;
mod rights;
mod security;
mod targets;
