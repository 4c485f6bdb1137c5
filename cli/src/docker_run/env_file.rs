//! The variables in a file of `--env-file`, as docker reads it.

use std::fs;
use std::io;
use std::path::Path;

/// A file of variables that the user gave.
#[derive(Debug)]
pub struct EnvFile {
    /// The names that it sets, each with its value if it gives one.
    pub variables: Vec<(String, Option<String>)>,
    /// What it said, if it can only be read once (a pipe): docker gets this copy.
    pub copy: Option<Vec<u8>>,
}

/// Reads the file at `path`.
pub fn read(path: &Path) -> io::Result<EnvFile> {
    let regular = fs::metadata(path)?.is_file();
    let content = fs::read(path)?;
    let variables = variables(&String::from_utf8_lossy(&content));
    Ok(EnvFile { variables, copy: (!regular).then_some(content) })
}

fn variables(content: &str) -> Vec<(String, Option<String>)> {
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    content
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (line.to_owned(), None),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_stands_before_the_equals_sign() {
        let content = "\u{feff}A=1\n  B=x=y\n# C=1\n\nD\n";
        let value = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let expected = [value("A", "1"), value("B", "x=y"), ("D".to_owned(), None)];
        assert_eq!(variables(content), expected);
    }
}
