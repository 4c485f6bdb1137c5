//! Names and addresses of hosts, and DNS: getaddrinfo(3), gethostbyname(3), resolver(3),
//! gethostname(2), uname(2).

pub mod hosts;
pub mod resolver;
pub mod reverse;
pub mod system;

use core::ffi::{CStr, c_char, c_int};

use libc::addrinfo;

use super::{errno, set_errno};
use crate::engine::Quiet;
use crate::names::{self, EAI_NODATA, Looked, Manner, NO_HINTS, Question};

type Get = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const addrinfo,
    *mut *mut addrinfo,
) -> c_int;
type Free = unsafe extern "C" fn(*mut addrinfo);

/// What the C library does.
struct Libc;

impl names::Original for Libc {
    unsafe fn get(
        &self,
        node: *const c_char,
        service: *const c_char,
        hints: *const addrinfo,
        list: &mut *mut addrinfo,
    ) -> c_int {
        let Some(original) = original!(getaddrinfo: Get) else { return libc::EAI_FAIL };
        let _quiet = Quiet::begin();
        // SAFETY: the caller's.
        unsafe { original(node, service, hints, list) }
    }

    unsafe fn free(&self, list: *mut addrinfo) {
        if let Some(original) = original!(freeaddrinfo: Free) {
            // SAFETY: the caller's.
            unsafe { original(list) };
        }
    }
}

/// A text of the caller's; empty if it has none.
///
/// # Safety
/// Null, or a string that outlives its use.
unsafe fn text<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return b"";
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

/// Sets `h_errno`.
fn set_host_error(error: names::HostError) {
    type Place = unsafe extern "C" fn() -> *mut c_int;
    let Some(place) = original!(any __h_errno_location: Place) else { return };
    // SAFETY: libc's promise.
    unsafe { *place() = error as c_int };
}

/// Whether this libc is glibc; else it is musl. Asked first while there is one thread: in musl, a
/// thread in which dlsym(3) has found nothing takes a lock when it ends, which a fork(3) at that
/// moment holds while it waits for the thread.
pub fn is_glibc() -> bool {
    original!(any gnu_get_libc_version: unsafe extern "C" fn() -> *const c_char).is_some()
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    list: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: the caller's.
    let (name, wish) = unsafe { (text(node), hints.as_ref().copied().unwrap_or(NO_HINTS)) };
    if wish.ai_flags & libc::AI_NUMERICHOST == 0 && names::is_remote(name) {
        let before = errno();
        let manner = if is_glibc() { Manner::Glibc } else { Manner::Musl };
        let question = Question { node: name, service, hints: wish, manner };
        // SAFETY: the caller's.
        match unsafe { names::look_up(question, &Libc, names::resolve) } {
            Looked::Direct => {}
            Looked::List(made) => {
                set_errno(before);
                // SAFETY: the caller's.
                unsafe { *list = made };
                return 0;
            }
            // musl tells a name without addresses from no name in its latest versions alone.
            Looked::Error(EAI_NODATA) if !is_glibc() => return libc::EAI_NONAME,
            Looked::Error(error) => return error,
            Looked::System(errno) => {
                set_errno(errno.0);
                return libc::EAI_SYSTEM;
            }
        }
    }
    let _quiet = Quiet::begin();
    match original!(getaddrinfo: Get) {
        // SAFETY: the caller's.
        Some(original) => unsafe { original(node, service, hints, list) },
        None => libc::EAI_FAIL,
    }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn freeaddrinfo(list: *mut addrinfo) {
    // SAFETY: the caller's list.
    unsafe { names::addrinfo::free(list, |list| names::Original::free(&Libc, list)) };
}
