//! The programs that `tests/layer-apps` makes for the layer's tests.

use std::path::PathBuf;

use anyhow::Result;

use crate::skip;

/// The machine's own Python, not one of a version manager that starts another.
pub const PYTHON: &str = "/usr/bin/python3";

/// The folder that holds them.
#[must_use]
pub fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let folder = target.join("layer-apps");
    folder.canonicalize().unwrap_or(folder)
}

/// One of them, as a word of a command line.
#[must_use]
pub fn path(name: &str) -> String {
    folder().join(name).to_string_lossy().into_owned()
}

/// A source among the apps of the layer's tests.
#[must_use]
pub fn source(name: &str) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("apps/layer").join(name);
    file.to_string_lossy().into_owned()
}

/// Whether a program is there: among ours, by its path, or in the folders of PATH.
#[must_use]
pub fn has(name: &str) -> bool {
    let found = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&found).collect();
    places.extend([folder(), PathBuf::from("/usr/sbin")]);
    places.iter().any(|place| place.join(name).exists())
}

/// Whether all of these are there; if not, `test` is skipped loudly.
///
/// # Errors
/// If one is missing and `CI=true`.
pub fn all(test: &str, names: &[&str]) -> Result<bool> {
    for name in names {
        if !has(name) {
            skip::missing(test, name)?;
            return Ok(false);
        }
    }
    Ok(true)
}
