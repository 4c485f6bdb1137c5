//! Memory of our own: the process's allocator is not ours to call.

use crate::sys::Errno;

/// Zeroed pages that nobody else knows.
#[derive(Debug)]
pub struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    /// At least so many bytes.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(len: usize) -> Result<Self, Errno> {
        Ok(Self { start: source::map(len)?, len })
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped by `new`, and borrowed as long as the slice is.
        unsafe { core::slice::from_raw_parts_mut(self.start, self.len) }
    }

    /// Where it is; the caller gives it back by [`release`].
    pub fn into_start(self) -> *mut u8 {
        core::mem::ManuallyDrop::new(self).start
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: nobody refers to it any longer.
        unsafe { release(self.start, self.len) };
    }
}

/// Gives back what [`Pages::into_start`] gave away.
///
/// # Safety
/// Nobody refers to it any longer.
pub unsafe fn release(start: *mut u8, len: usize) {
    // SAFETY: the caller's.
    unsafe { source::unmap(start, len) };
}

#[cfg(test)]
thread_local! {
    /// What this thread gave back: soon other threads may have it.
    pub static RELEASED: std::cell::RefCell<Vec<std::ops::Range<usize>>> = Default::default();
}

/// Through libc, for tools that watch what a program does with its memory.
#[cfg(all(feature = "preload", not(test)))]
mod source {
    use core::ffi::{c_int, c_void};

    use crate::interpose::errno;
    use crate::sys::Errno;

    type Map = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, c_int, i64) -> *mut c_void;
    type Unmap = unsafe extern "C" fn(*mut c_void, usize) -> c_int;

    pub fn map(len: usize) -> Result<*mut u8, Errno> {
        let map = original!(any mmap: Map).ok_or(Errno(libc::ENOMEM))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the kernel chooses a free place.
        let place = unsafe { map(core::ptr::null_mut(), len, protection, flags, -1, 0) };
        if place == libc::MAP_FAILED { Err(Errno(errno())) } else { Ok(place.cast()) }
    }

    /// # Safety
    /// Nobody refers to it any longer.
    pub unsafe fn unmap(start: *mut u8, len: usize) {
        if let Some(unmap) = original!(any munmap: Unmap) {
            // SAFETY: the caller's.
            unsafe { unmap(start.cast(), len) };
        }
    }
}

#[cfg(not(all(feature = "preload", not(test))))]
mod source {
    use crate::sys::{self, Errno};

    pub fn map(len: usize) -> Result<*mut u8, Errno> {
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        let arguments = [0, len, protection, flags, usize::MAX, 0];
        // SAFETY: the kernel chooses a free place.
        unsafe { sys::call(libc::SYS_mmap, arguments) }.map(|start| start as *mut u8)
    }

    /// # Safety
    /// Nobody refers to it any longer.
    pub unsafe fn unmap(start: *mut u8, len: usize) {
        #[cfg(test)]
        super::RELEASED
            .with_borrow_mut(|released| released.push(start as usize..start as usize + len));
        // SAFETY: the caller's.
        let _ = unsafe { sys::call(libc::SYS_munmap, [start as usize, len]) };
    }
}
