//! Holds a file against the table of keys.

use super::error::{ConfigError, Place};
use super::keys::{KEYS, Key, Status};
use super::kinds::{Kind, misfit};
use super::node::{Content, Entry, Node};
use crate::failure::nearest;

/// What became of a check.
pub struct Checked {
    /// Keys that are known and do nothing here, in the file's order.
    pub undone: Vec<&'static str>,
    /// What is wrong.
    pub mistakes: Vec<ConfigError>,
}

/// Checks a whole file.
pub fn check(root: &Node, place: &dyn Fn(usize) -> Place) -> Checked {
    let mut checker = Checker { place, undone: Vec::new(), mistakes: Vec::new() };
    match root.content {
        Content::Null => {}
        Content::Object(_) => checker.object("", root),
        _ => checker.wrong_kind("the file", &[Kind::Object], root),
    }
    Checked { undone: checker.undone, mistakes: checker.mistakes }
}

struct Checker<'a> {
    place: &'a dyn Fn(usize) -> Place,
    undone: Vec<&'static str>,
    mistakes: Vec<ConfigError>,
}

impl Checker<'_> {
    fn object(&mut self, path: &str, node: &Node) {
        let entries = node.entries();
        for (at, entry) in entries.iter().enumerate() {
            let path = match path {
                "" => entry.key.clone(),
                path => format!("{path}.{}", entry.key),
            };
            if entries[..at].iter().any(|other| other.key == entry.key) {
                let place = (self.place)(entry.at);
                self.mistakes.push(ConfigError::Twice { place, key: path });
                continue;
            }
            match Key::at(&path) {
                Some(key) => self.value(key, &entry.value),
                None => self.unknown(path, entry),
            }
        }
    }

    fn value(&mut self, key: &'static Key, node: &Node) {
        if node.is_null() {
            return;
        }
        if let Some(misfit) = misfit(key.kinds, node) {
            return self.wrong_kind(key.path, key.kinds, misfit);
        }
        match key.status {
            Status::Undone(anyway) if !anyway.contains(&node.value().to_string().as_str()) => {
                self.undone.push(key.path);
            }
            Status::Undone(_) => {}
            Status::Done if key.kinds.contains(&Kind::Object) => self.object(key.path, node),
            Status::Done => self.twice_within(key, node),
        }
    }

    /// The values of a map keep their names, but each may stand once.
    fn twice_within(&mut self, key: &Key, node: &Node) {
        let entries = node.entries();
        for (at, entry) in entries.iter().enumerate() {
            if entries[..at].iter().any(|other| other.key == entry.key) {
                let key = format!("{}.{}", key.path, entry.key);
                self.mistakes.push(ConfigError::Twice { place: (self.place)(entry.at), key });
            }
        }
    }

    fn unknown(&mut self, path: String, entry: &Entry) {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", &path));
        let nearest = nearest_key(parent, name);
        let place = (self.place)(entry.at);
        self.mistakes.push(ConfigError::UnknownKey { place, key: path, nearest });
    }

    fn wrong_kind(&mut self, key: &str, kinds: &[Kind], node: &Node) {
        let found = match &node.content {
            // Neither a word in the place of a choice nor a number in that of a port is a secret.
            Content::Text(text) if kinds.iter().any(|kind| matches!(kind, Kind::Choice(_))) => {
                format!("{text:?}")
            }
            Content::Number(number) if kinds.iter().any(|kind| kind.is_whole()) => {
                number.to_string()
            }
            _ if kinds.contains(&Kind::Workload) => "another one".to_owned(),
            _ => node.kind().to_owned(),
        };
        let words: Vec<String> = kinds.iter().map(|kind| kind.words()).collect();
        self.mistakes.push(ConfigError::Kind {
            place: (self.place)(node.at),
            key: key.to_owned(),
            expected: words.join(", or "),
            found,
        });
    }
}

/// The key that was meant: one of the same object, else one with such a name anywhere.
fn nearest_key(parent: &str, name: &str) -> Option<&'static str> {
    let best = |keys: &[&'static Key]| {
        let found = *nearest(name, keys.iter().map(|key| key.name())).first()?;
        keys.iter().find(|key| key.name() == found).map(|key| key.path)
    };
    let siblings: Vec<_> = KEYS.iter().filter(|key| key.parent() == parent).collect();
    let all: Vec<_> = KEYS.iter().collect();
    best(&siblings).or_else(|| best(&all))
}
