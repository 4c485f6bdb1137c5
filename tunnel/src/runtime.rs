//! The one thread that a tunnel and its streams live on.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, LocalOptions};

use crate::awake;

/// Runs `main` and what it spawns with `spawn_local` on this thread, until `main` ends.
///
/// `main` is a task like the others: waking the future that a runtime blocks on costs two system
/// calls each time, waking a task none.
///
/// # Errors
/// Those of `main`, and whatever kept the runtime from starting.
pub fn on_one_thread<E, F>(main: F) -> Result<(), E>
where
    E: From<io::Error> + 'static,
    F: Future<Output = Result<(), E>> + 'static,
{
    raise_file_limit();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.spawn_local(awake::keep());
    let ended = runtime.block_on(runtime.spawn_local(main));
    ended.unwrap_or_else(|error| Err(io::Error::from(error).into()))
}

/// Every stream is a descriptor, and the limit that programs start with is for those that use
/// select(2), which this one does not.
fn raise_file_limit() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "the limit of open files stays at {soft}");
    }
}
