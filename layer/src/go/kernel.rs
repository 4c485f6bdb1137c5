//! The few things about processes that are asked of the kernel here.

use core::sync::atomic::AtomicU32;

use crate::sys;

/// Whether the calling thread is its process's first one; so is a child of vfork(2).
pub fn leads_its_group() -> bool {
    // SAFETY: no pointer.
    unsafe { sys::call(libc::SYS_gettid, []) == sys::call(libc::SYS_getpid, []) }
}

/// Asks the kernel to write 0 there when the calling thread no longer has this memory, if another
/// still has it (set_tid_address(2)).
pub fn clear_when_gone(place: Option<&'static AtomicU32>) {
    let place = place.map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: the place exists as long as the memory does.
    let _ = unsafe { sys::call(libc::SYS_set_tid_address, [place as usize]) };
}

/// Gives the process a name, as ps(1) shows it (proc_pid_comm(5)).
pub fn name_process(name: &[u8]) {
    let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
    let path = c"/proc/self/comm".as_ptr() as usize;
    // SAFETY: the path ends with a zero, and the name is read.
    unsafe {
        let Ok(made) = sys::call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags, 0])
        else {
            return;
        };
        let Ok(file) = sys::Fd::adopt(made) else { return };
        let name = [file.number() as usize, name.as_ptr() as usize, name.len()];
        let _ = sys::call(libc::SYS_write, name);
    }
}
