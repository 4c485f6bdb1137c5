//! Programs that are executed: the layer goes along with them, and what it cannot go along with is
//! exchanged by the proxy or refused.
//!
//! ```text
//!  environment   LD_PRELOAD and MIRRORD_LAYER stay, whoever made the environment
//!  search        which file a name means                                          execvp(3)
//!  file          ... opened, and its first bytes
//!  program       with a loader, without one, or a script
//!  shell         started by the C library itself                            system(3)
//! ```
//!
//! All of it runs on the stack: a child of vfork(2) can leave nothing behind in its parent's memory.

pub mod environment;
pub mod file;
pub mod program;
mod room;
pub mod search;
mod shell;

use core::ffi::{CStr, c_char};

use mirrord_protocol::layer::{Request, Status, page as layout};

pub use environment::Environment;
pub use file::Program;
pub use shell::with_command;

use crate::page::{self, Page, Presence};
use crate::proxy;
use crate::settings::{Settings, settings};
use crate::sys::{self, Errno, Fd};
use environment::{Missing, Own};
use file::File;
use program::{Kind, Script, classify};

/// How often a script may be read by another one.
const SCRIPTS: usize = 4;
/// The most room for an environment where the stack is the program's.
pub const ROOM: usize = 256 << 10;
/// The same where it is one of ours.
const LITTLE_ROOM: usize = 128 << 10;

/// What becomes of a program.
#[allow(clippy::large_enum_variant, reason = "there is no heap to put it on")]
enum Verdict {
    /// It is executed.
    AsIs,
    /// This one is executed in its place.
    Instead(Fd),
    /// This one is executed in place of the interpreter of a script.
    Through(Fd, Script),
    /// It is not executed.
    Refused(Errno),
}

/// A program as it is to be executed.
#[derive(Debug, Clone, Copy)]
pub struct Prepared<'a> {
    /// What is to be executed, unless it is what was meant.
    pub instead: Option<&'a Fd>,
    /// Its arguments.
    pub arguments: *const *const c_char,
    /// Its environment.
    pub environment: *const *const c_char,
}

/// Decides how a program is executed, and does it by `run`.
///
/// # Errors
/// It must not be executed.
///
/// # Safety
/// As execve(2).
pub unsafe fn prepare<T>(
    program: &Program,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    most: usize,
    run: impl FnOnce(Prepared<'_>) -> T,
) -> Result<T, Errno> {
    let Some(settings) = settings() else {
        return Ok(run(Prepared { instead: None, arguments, environment }));
    };
    // SAFETY: the caller's.
    let environment = unsafe { Environment::new(environment) };
    let verdict = judge(program);
    with_environment(settings, environment, most, |environment| match &verdict {
        Verdict::AsIs => Ok(run(Prepared { instead: None, arguments, environment })),
        Verdict::Instead(fd) => Ok(run(Prepared { instead: Some(fd), arguments, environment })),
        Verdict::Refused(errno) => Err(*errno),
        Verdict::Through(fd, script) => {
            let path = program.path().map_or(core::ptr::null(), CStr::as_ptr);
            let instead = Some(fd);
            // SAFETY: the caller's.
            let done = unsafe {
                with_script(script, path, arguments, most, |arguments| {
                    run(Prepared { instead, arguments, environment })
                })
            };
            done.ok_or(Errno(libc::E2BIG))
        }
    })
}

/// execveat(2); what it returns is an error.
///
/// # Safety
/// As execve(2).
pub unsafe fn execute(
    program: &Program,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    most: usize,
) -> Errno {
    // SAFETY: the caller's.
    let done = unsafe {
        prepare(program, arguments, environment, most, |prepared| {
            let instead = prepared.instead.map(|fd| Program::open(fd.number()));
            instead.as_ref().unwrap_or(program).run(prepared.arguments, prepared.environment)
        })
    };
    done.unwrap_or_else(|errno| errno)
}

/// execve(2) as a system call, on a stack that is short; `None` if there is no layer.
///
/// # Safety
/// As execve(2).
pub unsafe fn system_call([path, arguments, environment, ..]: [usize; 6]) -> Option<isize> {
    settings()?;
    let program = Program::at(path as *const c_char);
    let (arguments, environment) = (arguments as *const _, environment as *const _);
    // SAFETY: the caller's.
    Some(unsafe { execute(&program, arguments, environment, LITTLE_ROOM) }.negative())
}

/// What fits in no room stays as it is.
fn with_environment<T>(
    settings: &Settings,
    environment: Environment,
    most: usize,
    run: impl FnOnce(*const *const c_char) -> T,
) -> T {
    let own = Own { library: settings.library(), variable: settings.variable() };
    let missing = Missing::of(environment).filter(|_| !own.library.is_empty());
    let len = missing.map_or(0, |missing| missing.room(&own));
    let Some(missing) = missing.filter(|_| len <= most.min(room::MOST)) else {
        return run(environment.as_ptr());
    };
    room::with(len, |room| {
        // SAFETY: the room is as long as it has to be, and aligned.
        run(unsafe { missing.fill(environment, &own, room) }.as_ptr())
    })
}

/// The arguments that the kernel makes for a script: the interpreter, what the script's first line
/// has behind it, the script, and the arguments but the first.
///
/// # Safety
/// The arguments are null, or end with null.
unsafe fn with_script<T>(
    script: &Script,
    path: *const c_char,
    arguments: *const *const c_char,
    most: usize,
    run: impl FnOnce(*const *const c_char) -> T,
) -> Option<T> {
    let mut count = 0usize;
    // SAFETY: the caller's.
    while !arguments.is_null() && unsafe { !(*arguments.add(count)).is_null() } {
        count = count.wrapping_add(1);
    }
    let len = count.wrapping_add(4).wrapping_mul(size_of::<*const c_char>());
    if len > most.min(room::MOST) {
        return None;
    }
    Some(room::with(len, |room| {
        let (array, mut len) = (room.cast::<*const c_char>(), 0usize);
        let mut push = |argument| {
            // SAFETY: there is room for all of them, three more, and the end.
            unsafe { array.add(len).write(argument) };
            len = len.wrapping_add(1);
        };
        push(script.interpreter().as_ptr().cast());
        if let Some(argument) = script.argument() {
            push(argument.as_ptr().cast());
        }
        push(path);
        // SAFETY: the caller's.
        (1..count).for_each(|at| push(unsafe { *arguments.add(at) }));
        push(core::ptr::null());
        run(array)
    }))
}

fn judge(program: &Program) -> Verdict {
    let Some(mut file) = File::of(program) else { return Verdict::AsIs };
    let mut script: Option<Script> = None;
    for depth in 0..SCRIPTS {
        if file.secure {
            say_secure(program, &file);
            return Verdict::AsIs;
        }
        match classify(&file) {
            Kind::Dynamic | Kind::Other => return Verdict::AsIs,
            Kind::Static => {
                let by = script.as_ref().map(Script::interpreter).and_then(path_of);
                let name = by.or(program.path()).unwrap_or_default().to_bytes();
                return match (
                    exchange(&file, name, depth > usize::from(program.is_plain())),
                    script,
                ) {
                    (Verdict::Instead(fd), Some(script)) => Verdict::Through(fd, script),
                    (verdict, _) => verdict,
                };
            }
            Kind::Script(next) => {
                let interpreter =
                    path_of(next.interpreter()).map(|path| Program::at(path.as_ptr()));
                let Some(next_file) = interpreter.as_ref().and_then(File::of) else {
                    return Verdict::AsIs;
                };
                (file, script) = (next_file, Some(next));
            }
        }
    }
    Verdict::AsIs
}

fn path_of(word: &[u8]) -> Option<&CStr> {
    CStr::from_bytes_until_nul(word).ok()
}

/// Asks the proxy what to execute in the place of a program that no library can be loaded into; a
/// script's script cannot be handed on to it.
fn exchange(file: &File, name: &[u8], is_nested: bool) -> Verdict {
    let mut path = [0; 1024];
    let path = file.path(&mut path);
    if is_left_alone([name, path]) {
        return Verdict::AsIs;
    }
    let name = if name.is_empty() { path } else { name };
    let answer = match proxy::ask(&Request::Exec, Some(file.fd().number()), &mut []) {
        // The session is over.
        Err(Errno::UNREACHABLE) => return Verdict::AsIs,
        Err(errno) => return Verdict::Refused(errno),
        Ok(answer) => answer,
    };
    match (answer.reply.status, answer.fd) {
        (Status::Direct, _) => return Verdict::AsIs,
        (Status::Done, Some(fd)) if !is_nested => return Verdict::Instead(fd),
        _ => {}
    }
    say(&[
        b"mirrord: error: ",
        name,
        b" is statically linked: no library can be loaded into it; ",
        b"run it in a container with 'mirrord docker run'\n",
    ]);
    // Shells say 126 to this; ENOEXEC would make them read the program as a script.
    Verdict::Refused(Errno(libc::EACCES))
}

/// Whether a program is on the list by the name that it is called by, or by that of its file, or
/// every program is what it is without the layer.
fn is_left_alone(paths: [&[u8]; 2]) -> bool {
    with_page(|page| {
        page.concerns_only_unix()
            || paths.into_iter().any(|path| page.skips(file_name(path), false))
    })
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The memory is not at hand in a program that is left alone itself.
fn with_page(ask: impl FnOnce(&Page) -> bool) -> bool {
    match page::presence() {
        Presence::Active(page) => return ask(page),
        Presence::Unreachable(_) => return false,
        Presence::Absent => {}
    }
    let fd = proxy::ask(&Request::Map, None, &mut []).ok().and_then(|answer| answer.fd);
    let Some(place) = fd.and_then(|fd| sys::map_shared(&fd, layout::LEN).ok()) else {
        return false;
    };
    // SAFETY: so much was mapped, and is unmapped when nobody refers to it any longer.
    unsafe {
        let answer = ask(Page::at(place));
        let _ = sys::call(libc::SYS_munmap, [place as usize, layout::LEN]);
        answer
    }
}

fn say_secure(program: &Program, file: &File) {
    let mut path = [0; 1024];
    let path = file.path(&mut path);
    let name = program.path().map_or(path, CStr::to_bytes);
    if !is_left_alone([name, path]) {
        say(&[
            b"mirrord: note: ",
            name,
            b" runs with other rights than its caller: no library can be loaded into it, ",
            b"so it runs without the target\n",
        ]);
    }
}

/// One line, written at once; what is too long is cut.
fn say(parts: &[&[u8]]) {
    let mut line = [0; 1024];
    let mut len = 0usize;
    for (to, from) in line.iter_mut().zip(parts.iter().copied().flatten()) {
        *to = *from;
        len = len.wrapping_add(1);
    }
    sys::complain(line.get(..len).unwrap_or_default());
}
