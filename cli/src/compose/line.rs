//! `docker [FLAGS] compose [FLAGS] VERB …`, as far as it has to be understood.

use std::ffi::OsString;

use crate::docker_run::parse;

/// Compose's own flags that have a value.
const VALUED: &[&str] = &[
    "ansi",
    "env-file",
    "f",
    "file",
    "p",
    "parallel",
    "profile",
    "progress",
    "project-directory",
    "project-name",
];
/// Flags of `compose run` that have a value.
const OF_RUN: &[&str] = &[
    "cap-add",
    "cap-drop",
    "e",
    "entrypoint",
    "env",
    "env-from-file",
    "l",
    "label",
    "name",
    "p",
    "publish",
    "pull",
    "u",
    "user",
    "v",
    "volume",
    "w",
    "workdir",
];

/// The line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// docker's own flags.
    pub docker: Vec<OsString>,
    /// Compose's flags before the verb.
    pub flags: Vec<OsString>,
    /// `-f`.
    pub files: Vec<String>,
    /// `--project-directory`.
    pub folder: Option<String>,
    /// What compose is to do.
    pub verb: String,
    /// What stands behind it.
    pub rest: Vec<OsString>,
}

impl Line {
    /// The line, if it is one of compose's.
    pub fn of(words: &[OsString]) -> Option<Self> {
        let behind = parse::behind_globals(words);
        let docker = words[..words.len() - behind.len()].to_vec();
        let (first, behind) = behind.split_first()?;
        if first != "compose" {
            return None;
        }
        let (read, count) = leading(behind, VALUED);
        let (flags, behind) = behind.split_at(count);
        let verb = behind.first().map(|verb| verb.to_string_lossy().into_owned());
        Some(Self {
            docker,
            flags: flags.to_vec(),
            files: values(&read, &["f", "file"]),
            folder: values(&read, &["project-directory"]).pop(),
            verb: verb.unwrap_or_default(),
            rest: behind.iter().skip(1).cloned().collect(),
        })
    }

    /// The service of a `run`, and whether ports are given for it.
    pub fn run(&self) -> (Option<String>, bool) {
        let (flags, count) = leading(&self.rest, OF_RUN);
        let service = self.rest.get(count).map(|name| name.to_string_lossy().into_owned());
        (service, !values(&flags, &["p", "publish"]).is_empty())
    }

    /// How often a service is to run, by `--scale`.
    pub fn scale(&self, service: &str) -> Option<u64> {
        let words: Vec<&str> = self.rest.iter().filter_map(|word| word.to_str()).collect();
        let apart = words.windows(2).filter(|pair| pair[0] == "--scale").map(|pair| pair[1]);
        let joined = words.iter().filter_map(|word| word.strip_prefix("--scale="));
        let of = |scale: &str| {
            let (name, count) = scale.split_once('=')?;
            count.parse().ok().filter(|_| name == service)
        };
        apart.chain(joined).filter_map(of).next_back()
    }
}

/// Leading flags that have values, with those; and how many words all of them are.
fn leading(words: &[OsString], valued: &[&str]) -> (Vec<(String, String)>, usize) {
    let (mut flags, mut count) = (Vec::new(), 0);
    while let Some(word) = words.get(count).and_then(|word| word.to_str()) {
        if word == "--" {
            return (flags, count + 1);
        }
        let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else { break };
        count += 1;
        if let Some((name, value)) = flag(name, valued) {
            let behind = words.get(count).filter(|_| value.is_none());
            count += usize::from(behind.is_some());
            let value = value.or_else(|| behind.map(|word| word.to_string_lossy().into_owned()));
            flags.extend(value.map(|value| (name, value)));
        }
    }
    (flags, count)
}

/// The name of a flag that has a value, and the value if it stands in the same word; `word` is
/// without the first dash.
fn flag(word: &str, valued: &[&str]) -> Option<(String, Option<String>)> {
    let owned = |text: &str| text.to_owned();
    if let Some(long) = word.strip_prefix('-') {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(owned(value))),
            None => (long, None),
        };
        return valued.contains(&name).then(|| (owned(name), value));
    }
    // Of several letters the first that has a value has the rest as its value.
    let mut letters = word.char_indices().map(|(at, letter)| &word[at..at + letter.len_utf8()]);
    let name = letters.find(|letter| valued.contains(letter))?;
    let rest = word.split_once(name).map_or("", |(_, rest)| rest);
    let value = Some(rest.trim_start_matches('=')).filter(|value| !value.is_empty());
    Some((owned(name), value.map(owned)))
}

/// The values of flags of some names.
fn values(flags: &[(String, String)], names: &[&str]) -> Vec<String> {
    let named = flags.iter().filter(|(name, _)| names.contains(&name.as_str()));
    named.map(|(_, value)| value.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Option<Line> {
        Line::of(&text.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_told_from_the_verb() {
        let read = line("--context box compose -f a.yaml --file=b.yaml -fc.yaml -p x --profile y --dry-run up -d --scale orders=2 web")
            .expect("a line");
        assert_eq!(read.docker, ["--context", "box"]);
        assert_eq!(read.files, ["a.yaml", "b.yaml", "c.yaml"]);
        assert_eq!((read.verb.as_str(), read.flags.len()), ("up", 9));
        assert_eq!((read.scale("orders"), read.scale("web")), (Some(2), None));
        assert_eq!(line("compose").expect("a line").verb, "");
        assert!(line("run --rm x").is_none() && line("ps").is_none());
    }

    #[test]
    fn the_service_of_a_run_is_found_behind_its_flags() {
        let run = |text: &str| line(text).expect("a line").run();
        let orders = Some("orders".to_owned());
        assert_eq!(run("compose run --rm -T -e A=b orders sh -p 1"), (orders.clone(), false));
        assert_eq!(run("compose run -itp 80:80 orders"), (orders.clone(), true));
        assert_eq!(run("compose run --publish=80:80 --name x orders"), (orders, true));
        assert_eq!(run("compose run --rm"), (None, false));
    }
}
