//! What to do when the kernel has no more to give.

use std::io;
use std::time::Duration;

use tracing::warn;

/// Long enough for others to give something back, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(50);

/// What was got. After a failure, out of file descriptors most likely, there is a pause: what is
/// asked for waits in the kernel's queue, and asking again at once would spin.
pub async fn or_pause<T>(result: io::Result<T>, doing: &'static str) -> Option<T> {
    match result {
        Ok(got) => Some(got),
        Err(error) => {
            warn!(%error, doing, "failed; trying again");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}
