//! Exit codes, in one place.

/// The app's container could not be started by us; docker's own code for the same.
pub const NOTHING_RAN: u8 = 125;
/// A command other than a `docker run` front failed.
pub const FAILED: u8 = 1;
/// There is no such command; a shell's code for the same.
pub const NOT_FOUND: u8 = 127;
/// The command cannot be executed; a shell's code for the same.
pub const NOT_EXECUTABLE: u8 = 126;
/// A command other than a `docker run` front was misused.
pub const MISUSE: u8 = 2;

/// What a shell shows for a process that a signal ended.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// What a shell shows for a child's end.
pub fn of_status(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(FAILED),
        (None, Some(signal)) => of_signal(signal),
        (None, None) => FAILED,
    }
}
