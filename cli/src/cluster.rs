//! Targets in a Kubernetes cluster, through its API server alone.
//!
//! ```text
//!  settings  what the user decides          rights    what of the API that needs
//!  connect   a client, as kubectl finds it  list      what can be a target
//!  target    the pods whose place is taken  delivery  our program on its way into an agent
//! ```

pub mod agent;
pub mod connect;
pub mod delivery;
pub mod forward;
pub mod list;
pub mod rights;
pub mod settings;
pub mod target;
