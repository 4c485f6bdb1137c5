//! All privileged kernel code: what redirects, copies and finds the traffic of a network namespace.
//!
//! ```text
//!        the shared namespace (sidecar)                 the target's namespace (agent)
//!   ┌──────────────────────────────────────┐       ┌──────────────────────────────────────┐
//!   │ app ──► rules, table T ──► sk_lookup │       │ network ──► sk_lookup ──► app        │
//!   │   ▲       (plane)             │      │       │              │  (steal)              │
//!   │   │ connect_as, PacketSender     ▼      │       │              ▼                       │
//!   │   └──────── (spoof) ──────── proxy   │       │            agent ──► PacketSender       │
//!   └──────────────────────────────────────┘       └──────────────────────────────────────┘
//! ```
//!
//! Every function works in the network namespace of the calling thread. Nothing here prints,
//! speaks HTTP or knows Docker; nothing that is set up for a target outlives the process.

pub mod addresses;
pub mod calls;
pub mod capture;
pub mod enter;
pub mod inherited;
pub mod listeners;
pub mod plane;
pub mod privileges;
pub mod reassembly;
pub mod spoof;
pub mod steal;
pub mod steered;
pub mod target;

mod bpf;
mod netlink;
mod sk_lookup;
mod sys;

pub use bpf::BpfError;
pub use plane::{PROXY_DNS_SOURCE, Plan, Plane, SIDECAR_SYSCTLS, Subnet};
pub use sk_lookup::SkLookupError;
pub use steal::Steal;
pub use steered::{Datagram, SteeredUdp};
pub use target::TargetNet;

/// The transport protocols that are redirected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Marks the proxy's own sockets that go out directly, past the tunnel.
pub const MARK_DIRECT: u32 = 1;

/// Marks what the proxy sends to the app, so that the app's replies find their way back to it.
pub const MARK_TO_APP: u32 = 2;

impl Proto {
    /// The protocol's number in an IP header.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tcp => libc::IPPROTO_TCP as u8,
            Self::Udp => libc::IPPROTO_UDP as u8,
        }
    }
}
