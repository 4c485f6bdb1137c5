//! Names and their addresses: those of the target's network, in the forms that a C library has for
//! them. What concerns this machine alone stays with the C library: addresses as text, `localhost`,
//! and the machine's own name.

pub mod addrinfo;
mod answer;
mod host;
mod hostent;
mod lookup;
mod memory;
mod message;
mod query;
mod reverse;
mod text;

use mirrord_protocol::layer::{Cause, MAX_PAYLOAD, Name, Request, Status};

pub use answer::Answer;
pub use host::{Buffer, ENOUGH, Hosted, host};
pub use hostent::Family;
pub use lookup::{EAI_NODATA, Looked, Manner, NO_HINTS, Original, Question, look_up};
pub use query::{Asked, Wish, query, send};
pub use reverse::{Reversed, host_of, reverse};

use crate::page::{self, Presence};
use crate::proxy;
use crate::sys::{self, Errno};
use memory::Pages;

/// Why a name has no answer, as `h_errno` (gethostbyname(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum HostError {
    /// `errno` says why.
    Internal = -1,
    /// HOST_NOT_FOUND.
    NotFound = 1,
    /// TRY_AGAIN.
    TryAgain = 2,
    /// NO_RECOVERY.
    Failed = 3,
    /// NO_DATA.
    NoData = 4,
}

impl From<Cause> for HostError {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::NotFound => Self::NotFound,
            Cause::NoData => Self::NoData,
            Cause::TryAgain => Self::TryAgain,
            Cause::Failed => Self::Failed,
        }
    }
}

/// A name's fate.
#[derive(Debug)]
pub enum Resolved<'a> {
    /// It is the C library's.
    Direct,
    /// It has addresses.
    Found(Answer<'a>),
    /// It has none.
    Refused(Cause),
    /// The proxy could not be asked.
    Failed(Errno),
}

/// Whether a name is the target's to know.
pub fn is_remote(name: &[u8]) -> bool {
    let hostname = match page::presence() {
        Presence::Absent => return false,
        Presence::Unreachable(_) => None,
        Presence::Active(page) => page.hostname(),
    };
    if name.is_empty() || text::is_address(name) || text::is_localhost(name) {
        return false;
    }
    let (name, _) = text::rooted(name);
    let same = |other: &[u8]| name.eq_ignore_ascii_case(other);
    hostname.is_some_and(same) || !same(node_name(&system()))
}

/// Asks for a name's addresses; the answer stands in `room`.
pub fn resolve<'a>(name: &[u8], v4: bool, v6: bool, room: &'a mut [u8]) -> Resolved<'a> {
    let Some(name) = Name::new(name) else { return Resolved::Direct };
    let answer = match proxy::ask(&Request::Resolve { name, v4, v6 }, None, room) {
        Ok(answer) => answer,
        Err(errno) => return Resolved::Failed(errno),
    };
    match answer.reply.status {
        Status::Direct => Resolved::Direct,
        Status::Refused => Resolved::Refused(Cause::of(answer.reply.value)),
        Status::Done => room
            .get(..answer.payload)
            .and_then(Answer::decode)
            .map_or(Resolved::Refused(Cause::Failed), Resolved::Found),
    }
}

/// Room for any answer.
fn answer_room() -> Result<Pages, Errno> {
    Pages::new(MAX_PAYLOAD)
}

/// What uname(2) says of this machine.
fn system() -> libc::utsname {
    // SAFETY: zeros are a value of it; the kernel writes no more than it.
    unsafe {
        let mut system = core::mem::zeroed();
        let _ = sys::call(libc::SYS_uname, [&raw mut system as usize]);
        system
    }
}

fn node_name(system: &libc::utsname) -> &[u8] {
    let all = &system.nodename;
    // SAFETY: the same bytes.
    let bytes = unsafe { core::slice::from_raw_parts(all.as_ptr().cast::<u8>(), all.len()) };
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// uname(2) with the target's host name, if that is to be seen.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// As uname(2).
pub unsafe fn uname(place: *mut libc::utsname) -> Result<(), Errno> {
    // SAFETY: the caller's.
    unsafe { sys::call(libc::SYS_uname, [place as usize]) }?;
    let Some(name) = page::page().and_then(page::Page::hostname) else { return Ok(()) };
    // SAFETY: the kernel has written there.
    let node = unsafe { &mut (*place).nodename };
    let end = core::iter::repeat(&0);
    node.iter_mut().zip(name.iter().chain(end)).for_each(|(to, from)| *to = *from as _);
    Ok(())
}

/// gethostname(2) with the target's host name; `None` if the machine's own is to be seen.
///
/// # Safety
/// As gethostname(2).
pub unsafe fn gethostname(place: *mut u8, len: usize) -> Option<Result<(), Errno>> {
    let name = page::page()?.hostname()?;
    // SAFETY: the caller's; the end is written if there is room for it.
    unsafe {
        core::ptr::copy_nonoverlapping(name.as_ptr(), place, name.len().min(len));
        if name.len() >= len {
            return Some(Err(Errno(libc::ENAMETOOLONG)));
        }
        place.add(name.len()).write(0);
    }
    Some(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_layer_no_name_is_the_targets() {
        assert!(!is_remote(b"db"));
    }

    #[test]
    fn the_machine_has_a_name() {
        let name = std::fs::read("/proc/sys/kernel/hostname").expect("procfs");
        assert_eq!(node_name(&system()), name.trim_ascii_end());
    }
}
