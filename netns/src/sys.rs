//! The system calls that no safe crate offers.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits per set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes `effective` the calling thread's effective and permitted set, and empties its
/// inheritable set. Bit numbers are the kernel's capability numbers.
pub(crate) fn set_capabilities(effective: u64) -> io::Result<()> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let words = [effective as u32, (effective >> 32) as u32].map(|word| CapabilityWords {
        effective: word,
        permitted: word,
        inheritable: 0,
    });
    // SAFETY: capset reads a header and, for this version, two data words; both live on this
    // stack frame with the kernel's layout. Pid 0 means the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    check(result)
}

/// The calling thread's effective capabilities.
pub(crate) fn capabilities() -> io::Result<u64> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut words = [CapabilityWords::default(); 2];
    // SAFETY: capget writes two data words for this version, and `words` has room for two.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    check(result)?;
    Ok(u64::from(words[0].effective) | u64::from(words[1].effective) << 32)
}

/// Empties the calling thread's ambient set.
pub(crate) fn clear_ambient() -> io::Result<()> {
    // SAFETY: prctl with integers only.
    let result =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    check(result)
}

/// Removes one capability from the calling thread's bounding set.
pub(crate) fn drop_bounding(capability: u8) -> io::Result<()> {
    // SAFETY: prctl with integers only.
    let result =
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    check(result)
}

/// Another descriptor of what is open at `fd`, which stays open.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with integers only; a number that is not open is refused.
    let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// The index of the loopback device, in every namespace.
pub(crate) const LOOPBACK: c_int = 1;

/// `PACKET_IGNORE_OUTGOING`: what is sent is of no interest.
const PACKET_IGNORE_OUTGOING: c_int = 23;

/// Lets a packet socket receive what carries this protocol at an interface; 0 is all interfaces.
pub(crate) fn bind_packets(
    socket: BorrowedFd<'_>,
    ethertype: u16,
    interface: c_int,
) -> io::Result<()> {
    // SAFETY: sockaddr_ll consists of integers; all zeroes is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = interface;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `address`, which lives on this stack frame.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })
}

/// Has a BPF program choose what a socket receives.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, program.as_raw_fd())
}

/// Spares a packet socket what leaves by its device.
pub(crate) fn ignore_outgoing(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
}

/// Sets an option that is an integer.
pub(crate) fn set_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: c_int,
) -> io::Result<()> {
    let len = size_of::<c_int>() as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: the kernel reads `len` bytes of `value`, which lives on this stack frame.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, len) })
}

/// Reads an option that is an integer.
pub(crate) fn option(socket: BorrowedFd<'_>, level: c_int, option: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, and how many to `len`; both live on
    // this stack frame.
    check(unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), level, option, value, &raw mut len)
    })?;
    Ok(value)
}

/// The error of a call that says 0 where there is none.
pub(crate) fn check(result: impl Into<libc::c_long>) -> io::Result<()> {
    if result.into() == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
