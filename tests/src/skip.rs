//! Tests that this machine can't run: skipped loudly at home, failed in CI.

use std::io::Write;

use anyhow::{Result, bail};

/// Says that `test` is skipped for want of `what`, past the capture of the test runner.
///
/// # Errors
/// With `CI=true`: there, nothing may be missing.
pub fn missing(test: &str, what: &str) -> Result<()> {
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("{test} needs {what}");
    }
    say(test, what);
    Ok(())
}

/// Says that `test` is skipped for want of what no set-up can bring, in CI too.
pub fn say(test: &str, what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: needs {what}");
}
