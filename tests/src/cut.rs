//! Connections that break although both ends live.

use std::fs;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::{Shutdown, SocketAddrAny, getpeername, getsockname, shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::processes::Process;

/// Breaks every connection of a process of which one end is `there`; how many that were.
///
/// # Errors
/// If this user may not.
pub fn connections(of: &Process, there: impl Fn(&SocketAddrAny) -> bool) -> Result<usize> {
    let pid = Pid::from_raw(of.pid).context("a process")?;
    let process = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    let mut broken = 0;
    for entry in fs::read_dir(format!("/proc/{}/fd", of.pid))? {
        let number = entry?.file_name().to_string_lossy().parse()?;
        // It may be closed by now.
        let Ok(socket) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
        if is_between(&socket, &there) && shutdown(&socket, Shutdown::Both).is_ok() {
            broken += 1;
        }
    }
    Ok(broken)
}

/// Whether it is a connection, and one of its ends is `there`.
fn is_between(socket: &OwnedFd, there: impl Fn(&SocketAddrAny) -> bool) -> bool {
    let Ok(Some(peer)) = getpeername(socket) else { return false };
    there(&peer) || getsockname(socket).is_ok_and(|own| there(&own))
}
