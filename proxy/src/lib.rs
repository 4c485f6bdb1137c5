//! The sidecar's processes: the local end of the tunnels, in the namespace that is shared with the
//! app; in the layer plane also that of the host.
//!
//! ```text
//!   CLI ─ stdin, stdout ─► init ─► worker ─┬─ door       the agent's socket, or pipes handed over
//!    │                  (restarts it)  ▲   ├─ session    a tunnel to the agent of each target
//!    │                                 │   ├─ drive      one of its pipes, until the next one
//!    └─ stdin, stdout ─► pipe ─────────┘   ├─ place      steering, names; then capabilities go
//!                       (hands them over)  ├─ outgoing   app ─► kernel ─► here ═► agent
//!                                          ├─ datagrams  the same for UDP, both ways
//!                                          ├─ echo       the same for pings
//!                                          ├─ ports      what the app listens on is subscribed
//!                                          ├─ incoming   agent ═► here ─► app, as the real client
//!                                          └─ layer      all of these for a preload library
//! ```

#![forbid(unsafe_code)]

mod check;
mod datagrams;
mod door;
mod drive;
mod echo;
mod flow;
mod incoming;
mod init;
mod layer;
mod limits;
mod link;
mod names;
mod outgoing;
mod peer;
mod pipe;
mod place;
mod ports;
mod reception;
mod report;
mod session;
mod subscriptions;
mod targets;
mod worker;

pub use check::run as check;
pub use init::run;
pub use mirrord_tunnel::handover::Header as PipeHeader;
pub use pipe::run as run_pipe;
pub use worker::run as run_worker;
