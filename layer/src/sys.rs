//! The kernel, without a libc: system calls behind safe names. None of them touches `errno`.

#[cfg_attr(target_arch = "x86_64", path = "sys/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "sys/aarch64.rs")]
mod architecture;
mod file;
mod socket;

use core::ffi::c_long;

pub use architecture::raw;
pub use file::{complain, map_shared, open, read, read_link, thread_name};
pub use socket::{
    NameBuffer, bind, connect, getpeername, getsockname, getsockopt_int, receive, send_with,
    set_patience, setsockopt_int, socket, tcp_state,
};

/// The first descriptor that may be ours: those below belong to the process's standard streams.
const FIRST_OWN: usize = 3;

/// Why the kernel refused (errno(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// What a call that needs the proxy says when there is none.
    pub const UNREACHABLE: Self = Self(libc::ENETUNREACH);

    /// As a system call returns it.
    pub const fn negative(self) -> isize {
        (self.0 as isize).wrapping_neg()
    }
}

/// One system call.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// What the kernel does with the arguments must be sound: pointers valid for what the call reads or
/// writes, descriptors ours to use.
pub unsafe fn call<const N: usize>(number: c_long, arguments: [usize; N]) -> Result<usize, Errno> {
    let mut all = [0; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = argument;
    }
    // SAFETY: the caller's promise.
    result(unsafe { raw(number as usize, all) })
}

/// What a system call's return value says.
///
/// # Errors
/// It says so.
pub const fn result(value: isize) -> Result<usize, Errno> {
    if value < 0 && value >= -4095 {
        Err(Errno(value.wrapping_neg() as i32))
    } else {
        Ok(value as usize)
    }
}

/// A result as a system call's return value.
pub const fn value(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(value) => value as isize,
        Err(errno) => errno.negative(),
    }
}

/// An open descriptor of ours; never one of the standard streams'.
#[derive(Debug)]
pub struct Fd(i32);

impl Fd {
    /// Takes a descriptor that the kernel has just made; a low one is exchanged for another.
    ///
    /// # Errors
    /// There is no other: EMFILE.
    pub fn adopt(made: usize) -> Result<Self, Errno> {
        let made = Self(made as i32);
        if made.0 as usize >= FIRST_OWN {
            return Ok(made);
        }
        let arguments = [made.0 as usize, libc::F_DUPFD_CLOEXEC as usize, FIRST_OWN];
        // SAFETY: no pointer.
        unsafe { call(libc::SYS_fcntl, arguments) }.map(|number| Self(number as i32))
    }

    /// Its number.
    pub fn number(&self) -> i32 {
        self.0
    }

    /// Its number, which the caller closes.
    pub fn into_number(self) -> i32 {
        core::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: no pointer; nobody else has the number.
        let _ = unsafe { call(libc::SYS_close, [self.0 as usize]) };
    }
}
