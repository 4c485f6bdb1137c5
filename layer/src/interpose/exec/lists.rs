//! execl(3) and its likes, whose arguments are their own: what came in registers is put before what
//! came on the stack, and that is the array that the others take. The C libraries' own call execve
//! where it cannot be hooked.

use core::ffi::{c_char, c_int};

use super::{Strings, environment, execve, execvp};

unsafe extern "C" fn list(path: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: the caller's.
    unsafe { execve(path, arguments, environment()) }
}

unsafe extern "C" fn searched(name: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: the caller's.
    unsafe { execvp(name, arguments) }
}

/// The environment is behind the null that ends the arguments.
unsafe extern "C" fn with_environment(path: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        let mut end = arguments;
        while !(*end).is_null() {
            end = end.add(1);
        }
        execve(path, arguments, *end.add(1).cast())
    }
}

macro_rules! hooks {
    ($($name:ident = $with:ident;)+) => {$(
        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        #[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
        pub(crate) unsafe extern "C" fn $name(path: *const c_char) -> c_int {
            core::arch::naked_asm!(
                "pop rax",
                "push r9",
                "push r8",
                "push rcx",
                "push rdx",
                "push rsi",
                "mov rsi, rsp",
                "push rax",
                "sub rsp, 8",
                "and rsp, -16",
                "push rsi",
                "sub rsp, 8",
                "call {with}",
                "mov rsi, [rsp + 8]",
                "mov rcx, [rsi - 8]",
                "lea rsp, [rsi + 40]",
                "push rcx",
                "ret",
                with = sym $with,
            )
        }

        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        #[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
        pub(crate) unsafe extern "C" fn $name(path: *const c_char) -> c_int {
            core::arch::naked_asm!(
                "sub sp, sp, #80",
                "str x30, [sp]",
                "str x1, [sp, #24]",
                "stp x2, x3, [sp, #32]",
                "stp x4, x5, [sp, #48]",
                "stp x6, x7, [sp, #64]",
                "add x1, sp, #24",
                "bl {with}",
                "ldr x30, [sp]",
                "add sp, sp, #80",
                "ret",
                with = sym $with,
            )
        }
    )+};
}

hooks! {
    execl = list;
    execlp = searched;
    execle = with_environment;
}
