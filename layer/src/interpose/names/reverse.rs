//! The way back: getnameinfo(3), gethostbyaddr(3).

use core::ffi::{c_char, c_int, c_void};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{hostent, sockaddr, socklen_t};
use mirrord_protocol::layer::MAX_NAME;

use super::super::{errno, set_errno};
use super::hosts::{Place, Reentrant};
use crate::engine::Quiet;
use crate::names::{self, Buffer, HostError, Hosted, Reversed};
use crate::sys::Errno;

type Info = unsafe extern "C" fn(
    *const sockaddr,
    socklen_t,
    *mut c_char,
    socklen_t,
    *mut c_char,
    socklen_t,
    c_int,
) -> c_int;

static PLACE: Place = Place::new();

/// The address of a socket address, if it has one and is whole.
///
/// # Safety
/// So many bytes, or null.
unsafe fn ip_of(address: *const sockaddr, len: socklen_t) -> Option<IpAddr> {
    let len = len as usize;
    if address.is_null() || len < size_of::<sockaddr>() {
        return None;
    }
    // SAFETY: the caller's; the length is that of the family.
    unsafe {
        match c_int::from((*address).sa_family) {
            libc::AF_INET => {
                let address = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(IpAddr::from(address.sin_addr.s_addr.to_ne_bytes()))
            }
            libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
                let address = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(IpAddr::from(address.sin6_addr.s6_addr))
            }
            _ => None,
        }
    }
}

/// The address that gethostbyaddr(3) is given.
///
/// # Safety
/// So many bytes, or null.
unsafe fn plain_ip_of(address: *const c_void, len: socklen_t, family: c_int) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe {
        match (family, len) {
            (libc::AF_INET, 4) => Some(Ipv4Addr::from(address.cast::<[u8; 4]>().read()).into()),
            (libc::AF_INET6, 16) => Some(Ipv6Addr::from(address.cast::<[u8; 16]>().read()).into()),
            _ => None,
        }
    }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn getnameinfo(
    address: *const sockaddr,
    len: socklen_t,
    host: *mut c_char,
    host_len: socklen_t,
    service: *mut c_char,
    service_len: socklen_t,
    flags: c_int,
) -> c_int {
    let Some(original) = original!(getnameinfo: Info) else { return libc::EAI_FAIL };
    let wanted = flags & libc::NI_NUMERICHOST == 0 && !host.is_null() && host_len > 0;
    // SAFETY: the caller's.
    let ip = if wanted { unsafe { ip_of(address, len) } } else { None };
    let before = errno();
    let mut room = [0; MAX_NAME];
    let numeric = match ip.map_or(Reversed::Direct, |ip| names::reverse(ip, &mut room)) {
        Reversed::Direct => 0,
        Reversed::Missing(HostError::TryAgain) => return libc::EAI_AGAIN,
        Reversed::Missing(_) if flags & libc::NI_NAMEREQD != 0 => return libc::EAI_NONAME,
        Reversed::Missing(_) => libc::NI_NUMERICHOST,
        Reversed::Failed(Errno(errno)) => {
            set_errno(errno);
            return libc::EAI_SYSTEM;
        }
        Reversed::Found(name) => {
            if name.len() >= host_len as usize {
                return libc::EAI_OVERFLOW;
            }
            // SAFETY: the name and its end fit.
            unsafe {
                core::ptr::copy_nonoverlapping(name.as_ptr(), host.cast(), name.len());
                host.add(name.len()).write(0);
            }
            set_errno(before);
            if service.is_null() || service_len == 0 {
                return 0;
            }
            let none = core::ptr::null_mut();
            // SAFETY: the caller's, without a host.
            return unsafe { original(address, len, none, 0, service, service_len, flags) };
        }
    };
    let flags = flags | numeric;
    let _quiet = Quiet::begin();
    // SAFETY: the caller's.
    unsafe { original(address, len, host, host_len, service, service_len, flags) }
}

/// Asks for a host; [`Hosted::Direct`] if it is none of ours.
///
/// # Safety
/// The caller's address and buffer.
unsafe fn ask(address: *const c_void, len: socklen_t, family: c_int, buffer: Buffer) -> Hosted {
    // SAFETY: the caller's.
    unsafe {
        match plain_ip_of(address, len, family) {
            Some(ip) => names::host_of(ip, buffer),
            None => Hosted::Direct,
        }
    }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn gethostbyaddr(
    address: *const c_void,
    len: socklen_t,
    family: c_int,
) -> *mut hostent {
    type Original = unsafe extern "C" fn(*const c_void, socklen_t, c_int) -> *mut hostent;
    // SAFETY: the caller's.
    if let Some(host) = PLACE.fill(|place| unsafe { ask(address, len, family, place) }) {
        return host;
    }
    let _quiet = Quiet::begin();
    match original!(gethostbyaddr: Original) {
        // SAFETY: as above.
        Some(original) => unsafe { original(address, len, family) },
        None => core::ptr::null_mut(),
    }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn gethostbyaddr_r(
    address: *const c_void,
    address_len: socklen_t,
    family: c_int,
    host: *mut hostent,
    start: *mut c_char,
    len: usize,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    type Original = unsafe extern "C" fn(
        *const c_void,
        socklen_t,
        c_int,
        *mut hostent,
        *mut c_char,
        usize,
        *mut *mut hostent,
        *mut c_int,
    ) -> c_int;
    let places = Reentrant { host, start, len, result, error };
    // SAFETY: the caller's.
    if let Some(code) = unsafe { places.fill(|place| ask(address, address_len, family, place)) } {
        return code;
    }
    let _quiet = Quiet::begin();
    match original!(gethostbyaddr_r: Original) {
        // SAFETY: as above.
        Some(original) => unsafe {
            original(address, address_len, family, host, start, len, result, error)
        },
        None => libc::ENOSYS,
    }
}
