//! `mirrord exec-with PARENT PROGRAM ARGS…`: becomes PROGRAM, which dies with its parent.
//!
//! Between fork and exec only unsafe code can run; so the child first becomes this.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Command, ExitCode};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};

use crate::exit;

/// The hidden command's name.
pub const NAME: &str = "exec-with";

/// Becomes the program; returns only if that cannot be.
pub fn run(words: &[OsString]) -> ExitCode {
    let [parent, program, arguments @ ..] = words else {
        return ExitCode::from(exit::MISUSE);
    };
    let _ = SigSet::empty().thread_set_mask();
    let _ = prctl::set_pdeathsig(Signal::SIGTERM);
    if parent.to_str() != Some(&parent_id().to_string()) {
        return ExitCode::from(exit::of_signal(Signal::SIGTERM as i32));
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("mirrord: error: cannot execute {}: {error}", program.to_string_lossy());
    ExitCode::from(exit::NOTHING_RAN)
}
