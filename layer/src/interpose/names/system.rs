//! The host's own name.

use core::ffi::{c_char, c_int};

use super::super::set_errno;
use super::is_glibc;
use crate::names;
use crate::sys::Errno;

fn returned(done: Result<(), Errno>) -> c_int {
    match done {
        Ok(()) => 0,
        Err(Errno(errno)) => {
            set_errno(errno);
            -1
        }
    }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn uname(place: *mut libc::utsname) -> c_int {
    // SAFETY: the caller's.
    returned(unsafe { names::uname(place) })
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn gethostname(place: *mut c_char, len: usize) -> c_int {
    type Original = unsafe extern "C" fn(*mut c_char, usize) -> c_int;
    // SAFETY: the caller's.
    match unsafe { names::gethostname(place.cast(), len) } {
        Some(Err(_)) if !is_glibc() => {
            if len > 0 {
                // SAFETY: as above.
                unsafe { place.add(len.wrapping_sub(1)).write(0) };
            }
            return 0;
        }
        Some(done) => return returned(done),
        None => {}
    }
    match original!(gethostname: Original) {
        // SAFETY: as above.
        Some(original) => unsafe { original(place, len) },
        None => returned(Err(Errno(libc::ENOSYS))),
    }
}

/// What glibc's header makes of [`gethostname`] where it knows how long the buffer really is
/// (_FORTIFY_SOURCE).
#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn __gethostname_chk(
    place: *mut c_char,
    len: usize,
    real: usize,
) -> c_int {
    type Original = unsafe extern "C" fn(*mut c_char, usize, usize) -> c_int;
    match original!(__gethostname_chk: Original) {
        // SAFETY: the caller's.
        Some(original) if len > real => unsafe { original(place, len, real) },
        // SAFETY: the caller's.
        _ => unsafe { gethostname(place, len.min(real)) },
    }
}
