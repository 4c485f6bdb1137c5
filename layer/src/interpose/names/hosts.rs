//! gethostbyname(3) in all its forms.

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int};

use libc::hostent;

use super::super::{errno, set_errno};
use super::{set_host_error, text};
use crate::engine::Quiet;
use crate::names::{self, Buffer, ENOUGH, Family, HostError, Hosted};
use crate::sys::Errno;

/// What such a function points to until it is called again.
pub(super) struct Place(UnsafeCell<(hostent, [usize; ENOUGH / size_of::<usize>()])>);

// SAFETY: gethostbyname(3) and gethostbyaddr(3) are not for several threads; their users see to it.
unsafe impl Sync for Place {}

const NOBODY: hostent = hostent {
    h_name: core::ptr::null_mut(),
    h_aliases: core::ptr::null_mut(),
    h_addrtype: 0,
    h_length: 0,
    h_addr_list: core::ptr::null_mut(),
};

impl Place {
    /// With nobody in it.
    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new((NOBODY, [0; ENOUGH / size_of::<usize>()])))
    }

    /// `None` if the C library is to answer.
    pub(super) fn fill(&self, ask: impl FnOnce(Buffer) -> Hosted) -> Option<*mut hostent> {
        let before = errno();
        let place = self.0.get();
        // SAFETY: the place is there always.
        let (host, start) = unsafe { (&raw mut (*place).0, (&raw mut (*place).1).cast()) };
        match ask(Buffer { host, start, len: ENOUGH }) {
            Hosted::Direct => return None,
            Hosted::Found => {
                set_errno(before);
                return Some(host);
            }
            Hosted::Missing(error) => set_host_error(error),
            Hosted::Failed(Errno(errno)) => {
                set_errno(errno);
                set_host_error(HostError::Internal);
            }
        }
        Some(core::ptr::null_mut())
    }
}

static PLACE: Place = Place::new();

/// Asks for a host; [`Hosted::Direct`] if it is none of ours.
///
/// # Safety
/// The caller's name and buffer.
unsafe fn ask(name: *const c_char, family: c_int, buffer: Buffer) -> Hosted {
    // SAFETY: the caller's.
    unsafe {
        let name = text(name);
        match Family::of(family) {
            Some(family) if names::is_remote(name) => {
                names::host(name, family, buffer, names::resolve)
            }
            _ => Hosted::Direct,
        }
    }
}

/// What the reentrant forms are given beside a name.
pub(super) struct Reentrant {
    pub(super) host: *mut hostent,
    pub(super) start: *mut c_char,
    pub(super) len: usize,
    pub(super) result: *mut *mut hostent,
    pub(super) error: *mut c_int,
}

impl Reentrant {
    /// `None` if the C library is to answer.
    ///
    /// # Safety
    /// All places are the caller's.
    pub(super) unsafe fn fill(self, ask: impl FnOnce(Buffer) -> Hosted) -> Option<c_int> {
        let before = errno();
        let buffer = Buffer { host: self.host, start: self.start.cast(), len: self.len };
        let (found, code, error) = match ask(buffer) {
            Hosted::Direct => return None,
            Hosted::Found => {
                set_errno(before);
                (self.host, 0, None)
            }
            Hosted::Missing(error) => (core::ptr::null_mut(), code_of(error), Some(error)),
            Hosted::Failed(Errno(errno)) => {
                set_errno(errno);
                (core::ptr::null_mut(), errno, Some(HostError::Internal))
            }
        };
        // SAFETY: the caller's.
        unsafe {
            *self.result = found;
            if let (Some(error), false) = (error, self.error.is_null()) {
                *self.error = error as c_int;
            }
        }
        Some(code)
    }
}

/// That there is no host is no failure of the reentrant forms.
fn code_of(error: HostError) -> c_int {
    match error {
        HostError::NotFound | HostError::NoData => 0,
        HostError::TryAgain => libc::EAGAIN,
        HostError::Failed | HostError::Internal => libc::EBADMSG,
    }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn gethostbyname(name: *const c_char) -> *mut hostent {
    type Original = unsafe extern "C" fn(*const c_char) -> *mut hostent;
    // SAFETY: the caller's.
    if let Some(host) = PLACE.fill(|place| unsafe { ask(name, libc::AF_INET, place) }) {
        return host;
    }
    let _quiet = Quiet::begin();
    match original!(gethostbyname: Original) {
        // SAFETY: as above.
        Some(original) => unsafe { original(name) },
        None => core::ptr::null_mut(),
    }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    type Original = unsafe extern "C" fn(*const c_char, c_int) -> *mut hostent;
    // SAFETY: the caller's.
    if let Some(host) = PLACE.fill(|place| unsafe { ask(name, family, place) }) {
        return host;
    }
    let _quiet = Quiet::begin();
    match original!(gethostbyname2: Original) {
        // SAFETY: as above.
        Some(original) => unsafe { original(name, family) },
        None => core::ptr::null_mut(),
    }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn gethostbyname_r(
    name: *const c_char,
    host: *mut hostent,
    start: *mut c_char,
    len: usize,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    type Original = unsafe extern "C" fn(
        *const c_char,
        *mut hostent,
        *mut c_char,
        usize,
        *mut *mut hostent,
        *mut c_int,
    ) -> c_int;
    let places = Reentrant { host, start, len, result, error };
    // SAFETY: the caller's.
    if let Some(code) = unsafe { places.fill(|place| ask(name, libc::AF_INET, place)) } {
        return code;
    }
    let _quiet = Quiet::begin();
    match original!(gethostbyname_r: Original) {
        // SAFETY: as above.
        Some(original) => unsafe { original(name, host, start, len, result, error) },
        None => libc::ENOSYS,
    }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    host: *mut hostent,
    start: *mut c_char,
    len: usize,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    type Original = unsafe extern "C" fn(
        *const c_char,
        c_int,
        *mut hostent,
        *mut c_char,
        usize,
        *mut *mut hostent,
        *mut c_int,
    ) -> c_int;
    let places = Reentrant { host, start, len, result, error };
    // SAFETY: the caller's.
    if let Some(code) = unsafe { places.fill(|place| ask(name, family, place)) } {
        return code;
    }
    let _quiet = Quiet::begin();
    match original!(gethostbyname2_r: Original) {
        // SAFETY: as above.
        Some(original) => unsafe { original(name, family, host, start, len, result, error) },
        None => libc::ENOSYS,
    }
}
