//! Files, memory and the process's own name.

use core::ffi::CStr;

use super::{Errno, Fd, call};

/// Opens a file to read it.
///
/// # Errors
/// The kernel's.
pub fn open(path: &CStr) -> Result<Fd, Errno> {
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0];
    // SAFETY: the path ends with a zero.
    Fd::adopt(unsafe { call(libc::SYS_openat, arguments) }?)
}

/// Reads what fits; 0 at the end.
///
/// # Errors
/// The kernel's, but never EINTR.
pub fn read(fd: &Fd, bytes: &mut [u8]) -> Result<usize, Errno> {
    let arguments = [fd.number() as usize, bytes.as_mut_ptr() as usize, bytes.len()];
    loop {
        // SAFETY: the slice is ours to write.
        match unsafe { call(libc::SYS_read, arguments) } {
            Err(Errno(libc::EINTR)) => {}
            done => return done,
        }
    }
}

/// What a symbolic link says, as far as it fits.
pub fn read_link<'a>(path: &CStr, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    let place = [bytes.as_mut_ptr() as usize, bytes.len()];
    let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, place[0], place[1]];
    // SAFETY: the path ends with a zero, and the slice is ours to write.
    let len = unsafe { call(libc::SYS_readlinkat, arguments) }.ok()?;
    bytes.get(..len)
}

/// The calling thread's name, zeros behind it (PR_GET_NAME).
pub fn thread_name() -> [u8; 16] {
    let mut name = [0; 16];
    let arguments = [libc::PR_GET_NAME as usize, (&raw mut name) as usize, 0, 0, 0];
    // SAFETY: the kernel writes at most 16 bytes.
    let _ = unsafe { call(libc::SYS_prctl, arguments) };
    name
}

/// Maps a file to be read, shared with who writes it.
///
/// # Errors
/// The kernel's.
pub fn map_shared(fd: &Fd, len: usize) -> Result<*const u8, Errno> {
    let (protection, flags) = (libc::PROT_READ as usize, libc::MAP_SHARED as usize);
    // SAFETY: the kernel chooses a free place.
    let place =
        unsafe { call(libc::SYS_mmap, [0, len, protection, flags, fd.number() as usize, 0]) }?;
    Ok(place as *const u8)
}

/// Writes to standard error, once.
pub fn complain(text: &[u8]) {
    // SAFETY: the slice is read.
    let _ = unsafe { call(libc::SYS_write, [2, text.as_ptr() as usize, text.len()]) };
}
