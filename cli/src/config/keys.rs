//! The keys of a configuration file.

mod table;

pub use self::table::KEYS;
use super::kinds::Kind;

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Its place, with dots.
    pub path: &'static str,
    /// What its value may be.
    pub kinds: &'static [Kind],
    /// Whether it does something here.
    pub status: Status,
    /// The options and variables that stand above it.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the docs"))]
    pub above: &'static str,
    /// What holds without it.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the docs"))]
    pub default: &'static str,
    /// What it does.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the docs"))]
    pub what: &'static str,
}

/// Whether a key does something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Yes.
    Done,
    /// No, and a warning says so, unless its value, as JSON, asks for what happens anyway.
    Undone(&'static [&'static str]),
}

impl Key {
    /// The key at a place.
    pub fn at(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// The last word of its place.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The place of the object that it stands in; empty for the whole file.
    pub fn parent(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }
}
