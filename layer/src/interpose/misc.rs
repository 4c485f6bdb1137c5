//! syscall(2), and io_uring(7): who gets none falls back to calls that are hooked.

use core::ffi::{c_int, c_long, c_uint, c_void};

use super::set_errno;
use crate::detours::{self, Call};
use crate::sys::{self, Errno};
use crate::{exec, names, page};

type Function = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

/// syscall(2): goes on to [`ours`] or to the C library's own, with the stack as it was, since a
/// call that makes a process returns twice.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn syscall() {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "sub rsp, 8",
        "call {chosen}",
        "add rsp, 8",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "jmp rax",
        chosen = sym chosen,
    )
}

/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn syscall() {
    core::arch::naked_asm!(
        "stp x29, x30, [sp, #-80]!",
        "stp x0, x1, [sp, #16]",
        "stp x2, x3, [sp, #32]",
        "stp x4, x5, [sp, #48]",
        "str x6, [sp, #64]",
        "bl {chosen}",
        "mov x16, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x2, x3, [sp, #32]",
        "ldp x4, x5, [sp, #48]",
        "ldr x6, [sp, #64]",
        "ldp x29, x30, [sp], #80",
        "br x16",
        chosen = sym chosen,
    )
}

/// Who makes a system call.
unsafe extern "C" fn chosen(number: c_long) -> Function {
    if is_ours(number) {
        return ours;
    }
    original!(syscall: Function).unwrap_or(plain)
}

/// All of a system call's arguments are in registers and one place on the stack, whether they were
/// given or not: so this needs no list of arguments.
unsafe extern "C" fn plain(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    // SAFETY: the caller's.
    returned(unsafe { sys::raw(number as usize, [a, b, c, d, e, f]) })
}

/// As above.
#[cold]
unsafe extern "C" fn ours(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let arguments = [a, b, c, d, e, f];
    // SAFETY: the caller's.
    returned(unsafe {
        answer(number, arguments).unwrap_or_else(|| sys::raw(number as usize, arguments))
    })
}

fn returned(value: isize) -> c_long {
    match sys::result(value) {
        Ok(value) => value as c_long,
        Err(Errno(errno)) => {
            set_errno(errno);
            -1
        }
    }
}

/// The system calls that [`answer`] knows, a bit each by number.
const OURS: [u64; 8] = {
    let own = [libc::SYS_execve, libc::SYS_execveat, libc::SYS_uname, libc::SYS_io_uring_setup];
    let (mut bits, mut at) = ([0; 8], 0);
    while at < own.len() + Call::ALL.len() {
        let socket = at.wrapping_sub(own.len());
        let number = if at < own.len() { own[at] } else { Call::ALL[socket].number() } as usize;
        bits[number / 64] |= 1 << (number % 64);
        at += 1;
    }
    bits
};

/// This stands before every system call that a program makes by number.
fn is_ours(number: c_long) -> bool {
    let number = number as usize;
    OURS.get(number / 64).is_some_and(|bits| bits >> (number % 64) & 1 != 0)
}

/// `None` if the kernel answers.
///
/// # Safety
/// The arguments are the kernel's.
unsafe fn answer(number: c_long, arguments: [usize; 6]) -> Option<isize> {
    let [first, second, third, fourth, fifth, _] = arguments;
    // SAFETY: the caller's.
    unsafe {
        match number {
            libc::SYS_io_uring_setup if page::is_active() => Some(Errno(libc::ENOSYS).negative()),
            libc::SYS_uname => Some(sys::value(names::uname(first as *mut _).map(|()| 0))),
            libc::SYS_execve => {
                let program = exec::Program::at(first as *const _);
                let (arguments, variables) = (second as *const _, third as *const _);
                Some(exec::execute(&program, arguments, variables, exec::ROOM).negative())
            }
            libc::SYS_execveat => {
                let program =
                    exec::Program::below(first as c_int, second as *const _, fifth as c_int);
                let (arguments, variables) = (third as *const _, fourth as *const _);
                Some(exec::execute(&program, arguments, variables, exec::ROOM).negative())
            }
            _ => detours::system_call(number as usize, arguments),
        }
    }
}

macro_rules! refused {
    ($($name:ident($($argument:ident: $kind:ty),+);)+) => {$(
        #[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
        pub(crate) unsafe extern "C" fn $name($($argument: $kind),+) -> c_int {
            if !page::is_active()
                && let Some(original) =
                    original!($name: unsafe extern "C" fn($($kind),+) -> c_int)
            {
                // SAFETY: the caller's.
                return unsafe { original($($argument),+) };
            }
            Errno(libc::ENOSYS).negative() as c_int
        }
    )+};
}

refused! {
    io_uring_setup(entries: c_uint, parameters: *mut c_void);
    io_uring_queue_init(entries: c_uint, ring: *mut c_void, flags: c_uint);
    io_uring_queue_init_params(entries: c_uint, ring: *mut c_void, parameters: *mut c_void);
    io_uring_queue_init_mem(
        entries: c_uint, ring: *mut c_void, parameters: *mut c_void, place: *mut c_void, len: usize
    );
}
