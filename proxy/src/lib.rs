//! The sidecar's process: the local end of the tunnel, in the namespace that it shares with the app.
//!
//! ```text
//!   CLI ─ stdin, stdout ─► init ─► worker ─┬─ setup      steering, names; then capabilities go
//!                         (restarts it)    ├─ outgoing   app ─► kernel ─► here ═► agent
//!                                          ├─ datagrams  the same for UDP, both ways
//!                                          ├─ ports      what the app listens on is subscribed
//!                                          └─ incoming   agent ═► here ─► app, as the real client
//! ```

#![forbid(unsafe_code)]

mod datagrams;
mod incoming;
mod init;
mod link;
mod names;
mod outgoing;
mod ports;
mod report;
mod setup;
mod worker;

pub use init::run;
pub use worker::run as run_worker;
