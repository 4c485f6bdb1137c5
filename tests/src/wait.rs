//! Waiting for a condition, never for a guess.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a condition may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(25);

/// Asks until there is an answer.
///
/// # Errors
/// If there is none after `patience`, with the last error of `ask`.
pub fn within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let answer = ask();
        if let Ok(Some(answer)) = answer {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            match answer {
                Err(error) => return Err(error.context(format!("waited {patience:?} for {what}"))),
                _ => bail!("waited {patience:?} for {what}"),
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Asks until there is an answer, for as long as a condition may take.
///
/// # Errors
/// If there is none.
pub fn until<T>(what: &str, ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, ask)
}

/// Asks until it is so.
///
/// # Errors
/// If it is never so.
pub fn until_true(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, || Ok(ask()?.then_some(())))
}
