//! The tunnel between proxy and agent: many streams over one authenticated WebSocket after another.
//!
//! ```text
//!  app ⇄ TcpStream ⇄ relay ⇄ Stream ─┐                      ┌─ Stream ⇄ relay ⇄ TcpStream ⇄ service
//!  app ⇄ datagrams ⇄ ─────── Stream ─┼─ outbox ═ WebSocket ═┤
//!                                    ┘   (one byte pipe)    └─ …
//! ```
//!
//! A pipe may break at any byte; the next one goes on with the same streams. Frames are numbered by
//! counting them, and each end keeps what the other has not acknowledged.
//!
//! Where the pipe is a unix socket, a connected socket can come beside a frame instead of a stream:
//!
//! ```text
//!  app ⇄ TcpStream ⇄ bridge (splice) ⇄ TcpStream ⇄ service
//! ```
//!
//! There the agent also gives sockets of the target's namespace away before they are connected, so
//! that the proxy connects them without asking.
//!
//! Everything of a tunnel lives on one thread ([`on_one_thread`]), so its state needs no lock and a
//! byte that comes in wakes no other thread.

#![forbid(unsafe_code)]

mod arena;
mod awake;
mod begun;
mod bridge;
pub mod datagrams;
mod descriptors;
mod greeting;
mod handed;
pub mod handover;
mod handshake;
mod kept;
mod outbox;
mod packets;
mod pause;
mod pipe;
mod relay;
mod runtime;
mod spares;
mod state;
mod stream;
mod tunnel;

pub use begun::stands;
pub use greeting::Greeting;
pub use handshake::{HandshakeError, Socket, accept, adopt, connect};
pub use pause::or_pause;
pub use pipe::{Carrier, HandedPipe, Pipe, UnixPipe, listen};
pub use relay::{Answers, Near, Outcome};
pub use runtime::on_one_thread;
pub use state::Violation;
pub use stream::{OpenError, Stream};
pub use tunnel::{Events, Tunnel, TunnelError};
