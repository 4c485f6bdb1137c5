//! posix_spawn(3). The program is looked at from the parent's folder: a child that is told to go to
//! another one before, and names its program from there, is not looked at.

use core::ffi::{c_char, c_int, c_void};

use super::{Strings, found};
use crate::engine::Quiet;
use crate::exec::{self, Program, ROOM, file, search};
use crate::sys::{self, Errno, Fd};

type Spawn = unsafe extern "C" fn(
    *mut libc::pid_t,
    *const c_char,
    *const c_void,
    *const c_void,
    Strings,
    Strings,
) -> c_int;

/// What both forms are given, beside the program.
struct Child {
    pid: *mut libc::pid_t,
    actions: *const c_void,
    attributes: *const c_void,
}

impl Child {
    /// Spawns by `original` what is executed in the program's place, or by `plain` the program.
    unsafe fn spawn(
        self,
        name: *const c_char,
        program: &Program,
        [arguments, variables]: [Strings; 2],
        [original, plain]: [Option<Spawn>; 2],
    ) -> c_int {
        let (Some(original), Some(plain)) = (original, plain) else { return libc::ENOSYS };
        let Self { pid, actions, attributes } = self;
        // SAFETY: the caller's.
        let done = unsafe {
            exec::prepare(program, arguments, variables, ROOM, |prepared| {
                let mut link = [0; file::LINK_LEN];
                let (spawn, path) = match prepared.instead {
                    Some(fd) => (original, own_link(fd, &mut link)),
                    None => (plain, name),
                };
                let (arguments, variables) = (prepared.arguments, prepared.environment);
                let _quiet = Quiet::begin();
                spawn(pid, path, actions, attributes, arguments, variables)
            })
        };
        done.unwrap_or_else(|Errno(errno)| errno)
    }
}

/// Where the child finds a descriptor of ours, whatever it has closed by then.
fn own_link(fd: &Fd, link: &mut [u8; file::LINK_LEN]) -> *const c_char {
    // SAFETY: no pointer.
    let own = unsafe { sys::call::<0>(libc::SYS_getpid, []) }.unwrap_or(0);
    let mut digits = [0; 10];
    file::write_link(file::decimal(own as u32, &mut digits), fd.number(), link).as_ptr()
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn posix_spawn(
    pid: *mut libc::pid_t,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    arguments: Strings,
    variables: Strings,
) -> c_int {
    let original = original!(posix_spawn: Spawn);
    let child = Child { pid, actions, attributes };
    // SAFETY: the caller's.
    unsafe { child.spawn(path, &Program::at(path), [arguments, variables], [original; 2]) }
}

#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn posix_spawnp(
    pid: *mut libc::pid_t,
    name: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    arguments: Strings,
    variables: Strings,
) -> c_int {
    let spawns = [original!(posix_spawn: Spawn), original!(posix_spawnp: Spawn)];
    let child = Child { pid, actions, attributes };
    let mut room = [0; search::LONGEST];
    // SAFETY: the caller's.
    unsafe {
        let program = found(name, &mut room);
        child.spawn(name, &program, [arguments, variables], spawns)
    }
}
