//! gethostbyname(3) and its likes.

use core::net::IpAddr;

use super::hostent::{Family, Host, TooSmall};
use super::{HostError, Resolved, answer_room};
use crate::sys::Errno;

/// Where a `struct hostent` and its parts are to be.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    /// The structure.
    pub host: *mut libc::hostent,
    /// Where its parts are.
    pub start: *mut u8,
    /// Bytes of room for them.
    pub len: usize,
}

/// What becomes of a question for a host.
#[derive(Debug, PartialEq, Eq)]
pub enum Hosted {
    /// The C library answers.
    Direct,
    /// The structure was written.
    Found,
    /// There is no such host.
    Missing(HostError),
    /// The proxy could not be asked, or (ERANGE) the buffer is too small.
    Failed(Errno),
}

/// Looks a host up; `resolve` asks for it.
///
/// # Safety
/// The buffer is the caller's to write.
pub unsafe fn host(
    name: &[u8],
    family: Family,
    buffer: Buffer,
    resolve: impl for<'a> FnOnce(&[u8], bool, bool, &'a mut [u8]) -> Resolved<'a>,
) -> Hosted {
    let mut room = match answer_room() {
        Ok(room) => room,
        Err(errno) => return Hosted::Failed(errno),
    };
    let answer = match resolve(name, family == Family::V4, family == Family::V6, room.bytes()) {
        Resolved::Direct => return Hosted::Direct,
        Resolved::Found(answer) => answer,
        Resolved::Refused(cause) => return Hosted::Missing(cause.into()),
        Resolved::Failed(Errno::UNREACHABLE) => return Hosted::Missing(HostError::TryAgain),
        Resolved::Failed(errno) => return Hosted::Failed(errno),
    };
    let addresses = answer.addresses().filter(|ip| family.holds(ip)).take(MAX_ADDRESSES);
    if addresses.clone().next().is_none() {
        return Hosted::Missing(HostError::NoData);
    }
    let host = Host { name: answer.canonical(name), asked: name, family, addresses };
    // SAFETY: the caller's.
    unsafe { write(host, buffer) }
}

/// Writes what was found.
///
/// # Safety
/// The buffer is the caller's to write.
pub unsafe fn write(host: Host<'_, impl Iterator<Item = IpAddr> + Clone>, to: Buffer) -> Hosted {
    // SAFETY: the caller's.
    match unsafe { host.write(to.host, to.start, to.len) } {
        Ok(()) => Hosted::Found,
        Err(TooSmall) => Hosted::Failed(Errno(libc::ERANGE)),
    }
}

/// The most addresses that are told; C libraries stop between 35 and 48.
const MAX_ADDRESSES: usize = 48;
/// Enough for the most addresses and the longest names.
pub const ENOUGH: usize = 2048;

#[cfg(test)]
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "all pointers are those of the test's own values"
)]
mod tests {
    use super::super::answer::{Answer, tests::payload};
    use super::*;
    use mirrord_protocol::layer::Cause;

    fn hosted(family: Family, ips: &[&str], len: usize) -> Hosted {
        let bytes = payload(ips, &format!("{}.example", "a".repeat(240)));
        let mut place = [0u8; ENOUGH];
        let mut entry: libc::hostent = unsafe { std::mem::zeroed() };
        let buffer = Buffer { host: &raw mut entry, start: place.as_mut_ptr(), len };
        unsafe {
            host(&[b'b'; 253], family, buffer, |_, _, _, room| {
                room[..bytes.len()].copy_from_slice(&bytes);
                Resolved::Found(Answer::decode(&room[..bytes.len()]).expect("an answer"))
            })
        }
    }

    #[test]
    fn a_host_needs_an_address_of_the_family_and_room() {
        assert_eq!(hosted(Family::V4, &["10.0.0.1"], ENOUGH), Hosted::Found);
        assert_eq!(hosted(Family::V6, &["10.0.0.1"], ENOUGH), Hosted::Missing(HostError::NoData));
        assert_eq!(hosted(Family::V4, &["10.0.0.1"], 64), Hosted::Failed(Errno(libc::ERANGE)));
        assert_eq!(hosted(Family::V6, &["2001:db8::1"; 500], ENOUGH), Hosted::Found);
    }

    #[test]
    fn who_is_not_found_is_said_to_be() {
        let buffer = Buffer { host: core::ptr::null_mut(), start: core::ptr::null_mut(), len: 0 };
        let with = |resolved: fn() -> Resolved<'static>| unsafe {
            host(b"db", Family::V4, buffer, |_, _, _, _| resolved())
        };
        let missing = Hosted::Missing(HostError::NotFound);
        assert_eq!(with(|| Resolved::Refused(Cause::NotFound)), missing);
        assert_eq!(with(|| Resolved::Direct), Hosted::Direct);
        let gone = with(|| Resolved::Failed(Errno::UNREACHABLE));
        assert_eq!(gone, Hosted::Missing(HostError::TryAgain));
        assert_eq!(with(|| Resolved::Failed(Errno(24))), Hosted::Failed(Errno(24)));
    }
}
