//! The Docker Engine, through its API.
//!
//! ```text
//!  endpoint  which engine, as docker decides it      image       ours, from the running executable
//!  connect   a client of the version both speak      containers  the sidecar and the agent
//!  far       by TLS and by ssh
//!  target    the container whose place is taken      clean       what a session leaves: nothing
//!  entrypoint  what the app would execute           podman      its API, served if nobody does
//! ```

pub mod apps;
pub mod attached;
pub mod clean;
pub mod connect;
pub mod containers;
pub mod elf;
pub mod endpoint;
pub mod entrypoint;
pub mod exec;
pub mod far;
pub mod image;
pub mod network;
pub mod podman;
pub mod target;

pub use connect::Engine;
pub use endpoint::Endpoint;
