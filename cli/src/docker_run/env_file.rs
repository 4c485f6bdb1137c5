//! The names in a file of `--env-file`, as docker reads it.

use std::fs;
use std::io;
use std::path::Path;

/// A file of variables that the user gave.
#[derive(Debug)]
pub struct EnvFile {
    /// The names that it sets.
    pub names: Vec<String>,
    /// What it said, if it can only be read once (a pipe): docker gets this copy.
    pub copy: Option<Vec<u8>>,
}

/// Reads the file at `path`.
pub fn read(path: &Path) -> io::Result<EnvFile> {
    let regular = fs::metadata(path)?.is_file();
    let content = fs::read(path)?;
    let names = names(&String::from_utf8_lossy(&content));
    Ok(EnvFile { names, copy: (!regular).then_some(content) })
}

fn names(content: &str) -> Vec<String> {
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    content
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once('=').map_or(line, |(name, _)| name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_stands_before_the_equals_sign() {
        let content = "\u{feff}A=1\n  B=x=y\n# C=1\n\nD\n";
        assert_eq!(names(content), ["A", "B", "D"]);
    }
}
