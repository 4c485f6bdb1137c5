//! The configuration file: options and environment stand above it, defaults below.
//!
//! ```text
//!   file ─► template ─► json | yaml | toml ─► node ─► check (keys, kinds) ─► Config
//! ```

mod check;
mod error;
mod json;
mod keys;
mod kinds;
mod node;
mod template;
mod toml;
mod verdict;
mod yaml;

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

pub use self::error::ConfigError;
use self::error::Place;
pub use self::kinds::{pair, workload};
pub use self::node::Node;
use self::node::{Content, SyntaxError};
pub use self::template::Lookup;
use self::template::{Position, Rendered};
pub use self::verdict::Verdict;

/// Where a file is looked for that nobody names.
pub const DEFAULT_FILES: &[&str] = &[
    ".mirrord/mirrord.json",
    ".mirrord/mirrord.yaml",
    ".mirrord/mirrord.yml",
    ".mirrord/mirrord.toml",
];

/// The longest file that is read, in KiB.
const LONGEST: u64 = 1024;

/// A file that was read and holds nothing unknown; or none, which holds nothing at all.
pub struct Config {
    file: String,
    root: Node,
    rendered: Option<Rendered>,
    undone: Vec<&'static str>,
}

/// A format of files.
#[derive(Clone, Copy)]
enum Format {
    Json,
    Yaml,
    Toml,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    fn parse(self, text: &str) -> Result<Node, SyntaxError> {
        match self {
            Self::Json => json::parse(text),
            Self::Yaml => yaml::parse(text),
            Self::Toml => toml::parse(text),
        }
    }
}

impl Config {
    /// What holds without a file.
    pub fn none() -> Self {
        let root = Node { content: Content::Null, at: 0 };
        Self { file: String::new(), root, rendered: None, undone: Vec::new() }
    }

    /// Reads the file that was named, else the first of [`DEFAULT_FILES`] in a folder, if any.
    pub fn find(
        named: Option<&Path>,
        folder: &Path,
        lookup: Lookup<'_>,
    ) -> Result<Self, ConfigError> {
        if let Some(path) = named {
            return Self::read(path, lookup);
        }
        match DEFAULT_FILES.iter().find(|file| folder.join(file).is_file()) {
            Some(file) => Self::read(Path::new(file), lookup),
            None => Ok(Self::none()),
        }
    }

    /// Reads a file and holds it against the table of keys.
    pub fn read(path: &Path, lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let format = Format::of(path).ok_or_else(|| ConfigError::Format(file.clone()))?;
        let source = content(path, &file)?;
        Self::of(file, format, source, lookup)
    }

    fn of(
        file: String,
        format: Format,
        source: String,
        lookup: Lookup<'_>,
    ) -> Result<Self, ConfigError> {
        let syntax = |position: Position, error: SyntaxError| ConfigError::Syntax {
            place: Place { file: file.clone(), position },
            message: error.message,
            hint: error.hint,
        };
        let rendered = Rendered::new(source.clone(), lookup)
            .map_err(|error| syntax(Position::of(&source, error.at), error))?;
        let root = format
            .parse(rendered.text())
            .map_err(|error| syntax(rendered.position(error.at), error))?;
        let place = |at| Place { file: file.clone(), position: rendered.position(at) };
        let checked = check::check(&root, &place);
        let mut mistakes = checked.mistakes;
        match mistakes.len() {
            0 => Ok(Self { file, root, rendered: Some(rendered), undone: checked.undone }),
            1 => Err(mistakes.remove(0)),
            _ => Err(ConfigError::Several { file, mistakes }),
        }
    }

    /// What was read elsewhere and has no templates.
    pub fn of_value(what: &str, value: &Value) -> Result<Self, ConfigError> {
        let root = Node::from(value);
        let place = |_| Place { file: what.to_owned(), position: Position { line: 1, column: 1 } };
        let checked = check::check(&root, &place);
        let undone = checked.undone;
        match checked.mistakes.into_iter().next() {
            Some(mistake) => Err(mistake),
            None => Ok(Self { file: what.to_owned(), root, rendered: None, undone }),
        }
    }

    /// The value at a place, unless it is missing or null.
    pub fn get(&self, path: &str) -> Option<&Node> {
        debug_assert!(keys::Key::at(path).is_some(), "{path} is in the table");
        path.split('.').try_fold(&self.root, Node::get)
    }

    /// The string at a place.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.get(path)?.text()
    }

    /// `true` or `false` at a place.
    pub fn flag(&self, path: &str) -> Option<bool> {
        self.get(path)?.flag()
    }

    /// The number at a place.
    pub fn count(&self, path: &str) -> Option<u64> {
        self.get(path)?.count()
    }

    /// The string at a place, or its list of strings as one, separated by `;`.
    pub fn words(&self, path: &str) -> Option<String> {
        let node = self.get(path)?;
        let list = || node.items().iter().filter_map(Node::text).collect::<Vec<_>>().join(";");
        Some(node.text().map_or_else(list, str::to_owned))
    }

    /// The map of strings at a place.
    pub fn map<T: FromIterator<(String, String)>>(&self, path: &str) -> T {
        let entries = self.get(path).map(Node::entries).unwrap_or_default();
        let pairs = entries.iter().filter_map(|entry| Some((&entry.key, entry.value.text()?)));
        pairs.map(|(name, value)| (name.clone(), value.to_owned())).collect()
    }

    /// An error about the value at a place.
    pub fn wrong(&self, key: &'static str, message: String, hint: Option<String>) -> ConfigError {
        let at = self.get(key).map_or(0, |node| node.at);
        let position = match &self.rendered {
            Some(rendered) => rendered.position(at),
            None => Position { line: 1, column: 1 },
        };
        ConfigError::Value {
            place: Place { file: self.file.clone(), position },
            key,
            message,
            hint,
        }
    }

    /// The keys that are known and do nothing here, in a sentence.
    pub fn warning(&self) -> Option<String> {
        let (last, before) = self.undone.split_last()?;
        let keys = match before {
            [] => (*last).to_owned(),
            before => format!("{} and {last}", before.join(", ")),
        };
        let verb = if before.is_empty() { "does" } else { "do" };
        Some(format!("{}: {keys} {verb} nothing here", self.file))
    }
}

/// A YAML text's value; else what is wrong with it.
pub fn yaml_value(text: &str) -> Result<Value, String> {
    yaml::parse(text).map(|node| node.value()).map_err(|error| error.message)
}

/// Whether a configuration file has such a key.
pub fn is_key(path: &str) -> bool {
    keys::Key::at(path).is_some()
}

/// Holds what lies at a place of a YAML text against the table of keys, but for entries that are
/// somebody else's. Nothing if there is nothing, or if the text is not one that we can read.
pub fn check_part(
    file: &str,
    text: &str,
    way: &[&str],
    others: &dyn Fn(&str) -> bool,
) -> Option<Result<(), ConfigError>> {
    let root = yaml::parse(text).ok()?;
    let part = way.iter().try_fold(root, |node, key| node.into_value(key))?;
    let part = part.without(others);
    let place = |at| Place { file: file.to_owned(), position: Position::of(text, at) };
    let mut mistakes = check::check(&part, &place).mistakes;
    Some(match mistakes.len() {
        0 => Ok(()),
        1 => Err(mistakes.remove(0)),
        _ => Err(ConfigError::Several { file: file.to_owned(), mistakes }),
    })
}

fn content(path: &Path, file: &str) -> Result<String, ConfigError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing(file.to_owned()),
        _ => ConfigError::Read { file: file.to_owned(), source: error },
    };
    let mut bytes = Vec::new();
    let opened = File::open(path).map_err(failed)?;
    opened.take(LONGEST * 1024 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST * 1024 {
        return Err(ConfigError::TooLong { file: file.to_owned(), limit: LONGEST });
    }
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText(file.to_owned()))
}
