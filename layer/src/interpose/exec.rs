//! Programs that are executed: exec(3), execveat(2), posix_spawn(3).

pub mod lists;
pub mod shell;
pub mod spawn;

use core::ffi::{CStr, c_char, c_int};

use super::set_errno;
use crate::exec::{self, Environment, Program, ROOM, search};
use crate::sys::Errno;

type Strings = *const *const c_char;

unsafe extern "C" {
    static environ: Strings;
}

/// The process's environment as it is now.
fn environment() -> Strings {
    // SAFETY: libc's variable; whoever changes it while another thread executes a program is
    // wrong without us as well.
    unsafe { environ }
}

fn failed(Errno(errno): Errno) -> c_int {
    set_errno(errno);
    -1
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn execve(
    path: *const c_char,
    arguments: Strings,
    variables: Strings,
) -> c_int {
    // SAFETY: the caller's.
    failed(unsafe { exec::execute(&Program::at(path), arguments, variables, ROOM) })
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn execv(path: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: the caller's.
    unsafe { execve(path, arguments, environment()) }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn fexecve(
    fd: c_int,
    arguments: Strings,
    variables: Strings,
) -> c_int {
    if fd < 0 || arguments.is_null() || variables.is_null() {
        return failed(Errno(libc::EINVAL));
    }
    // SAFETY: the caller's.
    failed(unsafe { exec::execute(&Program::open(fd), arguments, variables, ROOM) })
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn execveat(
    folder: c_int,
    path: *const c_char,
    arguments: Strings,
    variables: Strings,
    flags: c_int,
) -> c_int {
    let program = Program::below(folder, path, flags);
    // SAFETY: the caller's.
    failed(unsafe { exec::execute(&program, arguments, variables, ROOM) })
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn execvp(name: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: the caller's.
    unsafe { execvpe(name, arguments, environment()) }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn execvpe(
    name: *const c_char,
    arguments: Strings,
    variables: Strings,
) -> c_int {
    type Original = unsafe extern "C" fn(*const c_char, Strings, Strings) -> c_int;
    let original = original!(execvpe: Original);
    let mut room = [0; search::LONGEST];
    // SAFETY: the caller's. The C library searches by itself, and gives scripts without a first
    // line to a shell.
    let done = unsafe {
        let program = found(name, &mut room);
        exec::prepare(&program, arguments, variables, ROOM, |prepared| {
            let (arguments, variables) = (prepared.arguments, prepared.environment);
            match (prepared.instead, original) {
                (Some(fd), _) => failed(Program::open(fd.number()).run(arguments, variables)),
                (None, Some(original)) => original(name, arguments, variables),
                (None, None) => failed(program.run(arguments, variables)),
            }
        })
    };
    done.unwrap_or_else(failed)
}

/// The program that a name means in the process's PATH; the name itself if there is none.
///
/// # Safety
/// Null, or a string.
unsafe fn found(name: *const c_char, room: &mut [u8; search::LONGEST]) -> Program {
    if name.is_null() {
        return Program::at(name);
    }
    // SAFETY: the caller's; libc's environment.
    let (text, variables) = unsafe { (CStr::from_ptr(name), Environment::new(environment())) };
    match search::find(text, variables.get("PATH"), room) {
        Some(path) => Program::at(path.as_ptr()),
        None => Program::at(name),
    }
}
