//! Capabilities: keeping only what is needed.

use std::{fmt, io, thread};

use socket2::{Domain, Socket, Type};

use crate::sys;

/// The highest number that the bounding set is asked for; the kernel has 41 capabilities today.
const LAST: u8 = 63;

/// A Linux capability, by its kernel number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Capability {
    /// Addresses, routes, rules, marks, transparent sockets.
    NetAdmin = 12,
    /// Raw, packet and transparent sockets; marks since Linux 5.17.
    NetRaw = 13,
    /// Reading another process's memory, environment and root.
    SysPtrace = 19,
    /// setns, and bpf where the kernel or the engine does not know [`Capability::Bpf`].
    SysAdmin = 21,
    /// Loading BPF programs.
    Bpf = 39,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetAdmin => "NET_ADMIN",
            Self::NetRaw => "NET_RAW",
            Self::SysPtrace => "SYS_PTRACE",
            Self::SysAdmin => "SYS_ADMIN",
            Self::Bpf => "BPF",
        })
    }
}

/// Capabilities that the agent needs and does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(Vec<Capability>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(Capability::to_string).collect();
        write!(f, "the agent has no {}", names.join(" and no "))
    }
}

impl std::error::Error for Missing {}

/// Drops every capability but these from the calling thread: effective, permitted, inheritable,
/// ambient, and bounding where that is allowed.
///
/// A thread's capabilities are its own and go to the threads that it starts later, so call this
/// before the program has others.
pub fn keep_only(caps: &[Capability]) -> io::Result<()> {
    let kept = caps.iter().fold(0, |set, cap| set | 1_u64 << *cap as u8);
    for capability in 0..=LAST {
        // Needs CAP_SETPCAP, which the sidecar does not have; the permitted set is what counts.
        if kept & 1 << capability == 0 && sys::drop_bounding(capability).is_err() {
            break;
        }
    }
    sys::clear_ambient()?;
    sys::set_capabilities(kept)
}

/// Whether the calling thread has a capability now.
pub fn has(capability: Capability) -> bool {
    sys::capabilities().is_ok_and(|set| set & 1 << capability as u8 != 0)
}

/// Fails unless the calling thread has all of these. [`Capability::SysAdmin`] stands in for
/// [`Capability::Bpf`].
pub fn require(caps: &[Capability]) -> Result<(), Missing> {
    let stands_in = |cap| cap == Capability::Bpf && has(Capability::SysAdmin);
    let missing = caps.iter().copied().filter(|cap| !has(*cap) && !stands_in(*cap));
    match missing.collect::<Vec<_>>() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(Missing(missing)),
    }
}

/// Whether this kernel wants [`Capability::NetAdmin`] for SO_MARK (before Linux 5.17), or
/// [`Capability::NetRaw`] is enough.
///
/// Tried on a thread of its own. Without NetRaw the answer is yes, as it cannot be tried.
pub fn marks_need_net_admin() -> bool {
    let trial = thread::spawn(|| {
        sys::set_capabilities(1 << Capability::NetRaw as u8)?;
        Socket::new(Domain::IPV4, Type::DGRAM, None)?.set_mark(crate::MARK_DIRECT)
    });
    !matches!(trial.join(), Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_gone_on_this_thread_only() {
        if !has(Capability::NetAdmin) {
            eprintln!("SKIPPED: needs CAP_NET_ADMIN");
            assert!(std::env::var_os("CI").is_none(), "CI must run as root");
            return;
        }
        let kept = thread::spawn(|| {
            keep_only(&[Capability::NetRaw]).map(|()| {
                (has(Capability::NetRaw), has(Capability::NetAdmin), has(Capability::Bpf))
            })
        });
        let kept =
            kept.join().expect("the thread panicked").expect("capabilities cannot be dropped");
        assert_eq!(kept, (true, false, false));
        assert!(has(Capability::NetAdmin));
    }

    #[test]
    fn what_is_missing_is_named() {
        let kept = thread::spawn(|| {
            keep_only(&[]).map(|()| require(&[Capability::NetAdmin, Capability::Bpf]))
        });
        let kept = kept.join().expect("the thread panicked").expect("they can always be dropped");
        assert_eq!(kept.unwrap_err().to_string(), "the agent has no NET_ADMIN and no BPF");
        assert_eq!(require(&[]), Ok(()));
    }
}
