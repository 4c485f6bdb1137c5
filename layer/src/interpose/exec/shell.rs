//! system(3), popen(3): their shells have the process's environment.

use core::ffi::{c_char, c_int, c_void};

use super::{environment, failed};
use crate::engine::Quiet;
use crate::exec::{ROOM, with_command};
use crate::sys::Errno;

fn quiet<T>(run: impl FnOnce() -> T) -> T {
    let _quiet = Quiet::begin();
    run()
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn system(command: *const c_char) -> c_int {
    type Original = unsafe extern "C" fn(*const c_char) -> c_int;
    let Some(original) = original!(system: Original) else { return failed(Errno(libc::ENOSYS)) };
    // SAFETY: the caller's.
    unsafe { with_command(command, environment(), ROOM, |command| quiet(|| original(command))) }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn popen(command: *const c_char, kind: *const c_char) -> *mut c_void {
    type Original = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut c_void;
    let Some(original) = original!(popen: Original) else {
        failed(Errno(libc::ENOSYS));
        return core::ptr::null_mut();
    };
    // SAFETY: the caller's.
    unsafe {
        with_command(command, environment(), ROOM, |command| quiet(|| original(command, kind)))
    }
}
