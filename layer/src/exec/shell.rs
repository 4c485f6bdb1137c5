//! Commands of a shell that the C library starts by itself: system(3), popen(3).

use core::ffi::{CStr, c_char};

use super::environment::{Environment, Missing, Own};
use super::room;
use crate::settings::settings;

/// Calls a function with a command that puts the layer into what it starts, if the environment
/// would not; a shell that is not hooked itself does that.
///
/// # Safety
/// A string or null, and the environment that the shell will have.
pub unsafe fn with_command<T>(
    command: *const c_char,
    environment: *const *const c_char,
    most: usize,
    run: impl FnOnce(*const c_char) -> T,
) -> T {
    let Some(settings) = settings().filter(|_| !command.is_null()) else { return run(command) };
    // SAFETY: the caller's.
    let (text, environment) =
        unsafe { (CStr::from_ptr(command).to_bytes(), Environment::new(environment)) };
    let own = Own { library: settings.library(), variable: settings.variable() };
    let quotable = [own.library, own.variable].iter().all(|word| !word.contains(&b'\''));
    if own.library.is_empty() || !quotable || Missing::of(environment).is_none() {
        return run(command);
    }
    let parts = parts(&own, text);
    let len = parts.iter().fold(1usize, |len, part| len.wrapping_add(part.len()));
    if len > most.min(room::MOST) {
        return run(command);
    }
    room::with(len, |room| {
        let bytes = parts.iter().copied().flatten().chain(&[0]);
        bytes.enumerate().for_each(|(at, byte)| {
            // SAFETY: the room is as long as all of them.
            unsafe { room.add(at).write(*byte) };
        });
        run(room.cast())
    })
}

/// What the environment has of it stays.
fn parts<'a>(own: &Own<'a>, command: &'a [u8]) -> [&'a [u8]; 6] {
    [
        b"MIRRORD_LAYER=${MIRRORD_LAYER-'",
        own.variable,
        b"'} LD_PRELOAD=${LD_PRELOAD:+$LD_PRELOAD:}'",
        own.library,
        b"'; export MIRRORD_LAYER LD_PRELOAD; ",
        command,
    ]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_sets_what_is_missing() {
        let own = Own { library: b"/a b/lib.so", variable: b"name:00" };
        let command = parts(&own, b"echo \"$LD_PRELOAD $MIRRORD_LAYER\"").concat();
        let command = String::from_utf8(command).expect("text");
        let said = |variables: &[(&str, &str)]| {
            let mut shell = Command::new("sh");
            shell.env_clear().envs(variables.iter().copied()).args(["-c", &command]);
            String::from_utf8(shell.output().expect("a shell").stdout).expect("text")
        };
        assert_eq!(said(&[]), "/a b/lib.so name:00\n");
        let own = [("LD_PRELOAD", ""), ("MIRRORD_LAYER", "other")];
        assert_eq!(said(&own), "/a b/lib.so other\n");
    }
}
