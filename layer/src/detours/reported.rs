//! Calls that report an address: the kernel's is exchanged for the one that it stands for.

use core::net::SocketAddr;

use mirrord_protocol::layer::{Slot, Transport};

use super::{Call, Kernel, seen, transport, unix};
use crate::address::{Family, SockAddr, parse};
use crate::page::{Page, page};
use crate::settings::settings;
use crate::sys::{self, Errno, NameBuffer};

/// accept(2) and accept4(2)
pub unsafe fn accept<K: Kernel>(
    kernel: K,
    call: Call,
    arguments: [usize; 6],
) -> Result<usize, Errno> {
    let translate = |page: &Page, told| seen::remote(page, Transport::Tcp, told);
    // SAFETY: the caller's promise; the address is the second argument.
    unsafe { report::<K, 1>(kernel, call, arguments, translate) }
}

/// getpeername(2)
pub unsafe fn getpeername<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [fd, ..] = arguments;
    let translate = |page: &Page, told: SocketAddr| match Slot::of_remote(told.ip()) {
        Some(slot) => page.remote(slot),
        None => seen::remote(page, transport(fd as i32)?, told),
    };
    // SAFETY: the caller's promise; the address is the second argument.
    unsafe { report::<K, 1>(kernel, Call::GetPeerName, arguments, translate) }
}

/// getsockname(2)
pub unsafe fn getsockname<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [fd, ..] = arguments;
    let fd = fd as i32;
    let translate = |page: &Page, told: SocketAddr| {
        let peer = sys::getpeername(fd).and_then(|name| parse(name.as_bytes()));
        seen::local(page, transport(fd)?, told, peer.map(|(_, address)| address))
    };
    // SAFETY: the caller's promise; the address is the second argument.
    unsafe { report::<K, 1>(kernel, Call::GetSockName, arguments, translate) }
}

/// recvfrom(2)
pub unsafe fn recvfrom<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let translate = |page: &Page, told| seen::remote(page, Transport::Udp, told);
    // SAFETY: the caller's promise; the address is the fifth argument.
    unsafe { report::<K, 4>(kernel, Call::RecvFrom, arguments, translate) }
}

/// Makes a call whose argument number AT is where an address goes to, and the next one where its
/// length is and goes to.
unsafe fn report<K: Kernel, const AT: usize>(
    kernel: K,
    call: Call,
    arguments: [usize; 6],
    translate: impl FnOnce(&Page, SocketAddr) -> Option<SocketAddr>,
) -> Result<usize, Errno> {
    let (place, len) = (arguments[AT], arguments[AT + 1] as *mut u32);
    // SAFETY: the caller's promise: a length that is not null can be read.
    if place == 0 || len.is_null() || unsafe { len.read_unaligned() } > i32::MAX as u32 {
        // SAFETY: the caller's promise.
        return unsafe { kernel.call(call, arguments) };
    }
    // SAFETY: the caller's promise.
    let room = unsafe { len.read_unaligned() };
    let mut buffer = NameBuffer::new();
    let mut own = arguments;
    own[AT] = buffer.place();
    own[AT + 1] = (&raw mut buffer.len) as usize;
    // SAFETY: the caller's promise, and a buffer of ours.
    let result = unsafe { kernel.call(call, own) }?;
    let report = Report::new(&buffer, translate);
    // SAFETY: the caller's promise: so much room is there, and the length can be written.
    unsafe { len.write_unaligned(report.copy_to(place, room)) };
    Ok(result)
}

/// An address that is about to be reported.
pub struct Report<'a> {
    kernels: &'a NameBuffer,
    instead: Option<SockAddr>,
}

impl<'a> Report<'a> {
    /// What the kernel wrote, or what it stands for.
    pub fn new(
        kernels: &'a NameBuffer,
        translate: impl FnOnce(&Page, SocketAddr) -> Option<SocketAddr>,
    ) -> Self {
        let instead = instead_of(kernels.as_bytes(), translate);
        Self { kernels, instead }
    }

    fn as_bytes(&self) -> &[u8] {
        self.instead.as_ref().map_or(self.kernels.as_bytes(), SockAddr::as_bytes)
    }

    /// Copies what fits, as the kernel does, and gives the full length.
    ///
    /// # Safety
    /// There is so much room at the place.
    pub unsafe fn copy_to(&self, place: usize, room: u32) -> u32 {
        let bytes = self.as_bytes();
        let fitting = bytes.len().min(room as usize);
        // SAFETY: the caller's promise; the bytes are ours and elsewhere.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place as *mut u8, fitting) };
        bytes.len() as u32
    }
}

/// What the app is to see instead of an address, in the same family.
pub fn instead_of(
    bytes: &[u8],
    translate: impl FnOnce(&Page, SocketAddr) -> Option<SocketAddr>,
) -> Option<SockAddr> {
    let Some((family, told)): Option<(Family, SocketAddr)> = parse(bytes) else {
        return unix::instead(bytes);
    };
    if !seen::may_be_ours(told) || settings().is_none() {
        return None;
    }
    SockAddr::new(translate(page()?, told)?, family)
}
