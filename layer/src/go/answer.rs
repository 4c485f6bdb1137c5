//! System calls of Go that may be ours, on a stack of ours.

use core::sync::atomic::Ordering;

use super::entry::{EXECUTING, NOT_OURS};
use super::{kernel, program};
use crate::sys::{self, Errno};
use crate::{detours, exec, names, page};

/// What the kernel would return, or [`NOT_OURS`].
///
/// # Safety
/// For the entry alone: the arguments are those of a system call.
pub unsafe extern "C" fn answer(number: usize, arguments: &[usize; 6]) -> isize {
    // Not in a child that is about to become another program.
    if number as i64 != libc::SYS_execve {
        program::rename();
    }
    let [first, second, third, fourth, ..] = *arguments;
    // SAFETY: the arguments are what the program gives the kernel.
    let answer = unsafe {
        match number as i64 {
            libc::SYS_readlink => program::read_link(first as *const u8, second as *mut u8, third),
            libc::SYS_readlinkat => {
                program::read_link(second as *const u8, third as *mut u8, fourth)
            }
            libc::SYS_execve => execute(arguments),
            libc::SYS_uname => Some(sys::value(names::uname(first as *mut _).map(|()| 0))),
            libc::SYS_io_uring_setup => page::is_active().then_some(Errno(libc::ENOSYS).negative()),
            _ => detours::system_call(number, *arguments),
        }
    };
    answer.unwrap_or(NOT_OURS)
}

/// execve(2). In a child that shares this memory until then (vfork(2)), the kernel is asked to say
/// by [`EXECUTING`] that the stack is free again (set_tid_address(2)).
///
/// # Safety
/// The arguments are those of execve(2).
unsafe fn execute(arguments: &[usize; 6]) -> Option<isize> {
    let leads = kernel::leads_its_group();
    if leads {
        kernel::clear_when_gone(Some(&EXECUTING));
    }
    // SAFETY: the caller's promise.
    let answer = unsafe { exec::system_call(*arguments) };
    if leads {
        kernel::clear_when_gone(None);
        EXECUTING.store(1, Ordering::Relaxed);
    }
    answer
}
