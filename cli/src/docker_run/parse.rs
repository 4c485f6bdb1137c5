//! The grammar of docker's command line, which is that of Go's pflag.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::client::{Client, DOCKER, Part};
use super::table::{FlagSpec, Takes};
use crate::failure::{Failure, nearest};

/// What a line that begins with `docker` asks for.
#[derive(Debug)]
pub enum Line {
    /// A container to stand in the target's place.
    Run(Box<DockerRun>),
    /// Something that docker answers by itself, like `docker run --help`.
    Docker,
}

/// A `docker run` line.
#[derive(Debug)]
pub struct DockerRun {
    /// Whose it is.
    pub client: &'static Client,
    /// Flags between `docker` and its command.
    pub globals: Vec<Flag>,
    /// `run`, or `container run`.
    pub verb: Vec<&'static str>,
    /// Flags of `run`, in their order.
    pub flags: Vec<Flag>,
    /// The image, the command and its arguments: never touched.
    pub rest: Vec<OsString>,
}

/// A flag as it was given.
#[derive(Debug, Clone)]
pub struct Flag {
    /// Which one.
    pub spec: &'static FlagSpec,
    /// Its value; `None` for a switch without one.
    pub value: Option<OsString>,
}

/// Why a line cannot be understood; docker's own words where docker refuses it too.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// A long flag that docker does not have.
    #[error("unknown flag: --{0}")]
    UnknownFlag(String),
    /// A one-letter flag that docker does not have.
    #[error("unknown shorthand flag: '{0}' in -{1}")]
    UnknownShorthand(char, String),
    /// A long flag without its value.
    #[error("flag needs an argument: --{0}")]
    NeedsValue(&'static str),
    /// A one-letter flag without its value.
    #[error("flag needs an argument: '{0}' in -{1}")]
    ShorthandNeedsValue(char, String),
    /// A word like `--=x`.
    #[error("bad flag syntax: {0}")]
    BadSyntax(String),
    /// A switch with a value that is neither true nor false.
    #[error("invalid argument {value:?} for \"--{flag}\" flag: it is neither true nor false")]
    NotABool {
        /// The flag's long name.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// `docker run` alone.
    #[error("'{0} run' requires at least 1 argument")]
    NoImage(&'static str),
    /// `docker` alone.
    #[error("nothing follows '{0}'")]
    NoCommand(&'static str),
    /// A docker command that no container comes from.
    #[error("'{0} {1}' does not start a container in a target's place")]
    OtherCommand(&'static str, String),
}

impl ParseError {
    /// What the user of that client is told.
    pub fn failure(&self, client: &'static Client) -> Failure {
        let program = client.program;
        let hint = match self {
            Self::UnknownFlag(name) => {
                let known = client.flags(Part::Run).map(|flag| flag.long);
                match nearest(name, known).first() {
                    Some(near) => format!("did you mean --{near}? see '{program} run --help'"),
                    None => format!(
                        "see '{program} run --help'; mirrord's own options stand before '{program}'"
                    ),
                }
            }
            Self::NoCommand(_) | Self::OtherCommand(..) => {
                format!("use 'mirrord -t container/NAME {program} run [FLAGS] IMAGE [COMMAND]'")
            }
            _ => format!("see '{program} run --help'"),
        };
        Failure::new(self.to_string()).hint(hint)
    }
}

/// Reads the words after `docker`, or after the program of another client.
pub fn line(client: &'static Client, words: &[OsString]) -> Result<Line, ParseError> {
    let program = client.program;
    let (globals, rest) = flags(words, client, Part::Global)?;
    if has_switch(&globals, &["help", "version"]) {
        return Ok(Line::Docker);
    }
    let word = |at: usize| rest.get(at).and_then(|word| word.to_str());
    let (verb, words) = match (word(0), word(1)) {
        (Some("run"), _) => (vec!["run"], &rest[1..]),
        (Some("container"), Some("run")) => (vec!["container", "run"], &rest[2..]),
        (Some("container"), Some(other)) => {
            return Err(ParseError::OtherCommand(program, format!("container {other}")));
        }
        (Some(other), _) => return Err(ParseError::OtherCommand(program, other.to_owned())),
        (None, _) => return Err(ParseError::NoCommand(program)),
    };
    let (flags, rest) = flags(words, client, Part::Run)?;
    if has_switch(&flags, &["help"]) {
        return Ok(Line::Docker);
    }
    if rest.is_empty() {
        return Err(ParseError::NoImage(program));
    }
    Ok(Line::Run(Box::new(DockerRun { client, globals, verb, flags, rest: rest.to_vec() })))
}

/// What stands behind docker's own flags; all of it if they are not understood.
pub fn behind_globals(words: &[OsString]) -> &[OsString] {
    flags(words, &DOCKER, Part::Global).map_or(words, |(_, behind)| behind)
}

fn has_switch(flags: &[Flag], names: &[&str]) -> bool {
    flags.iter().any(|flag| names.contains(&flag.spec.long))
}

/// Splits leading flags from the words behind them.
fn flags<'a>(
    mut words: &'a [OsString],
    client: &'static Client,
    part: Part,
) -> Result<(Vec<Flag>, &'a [OsString]), ParseError> {
    let mut flags = Vec::new();
    while let Some((word, behind)) = words.split_first() {
        let bytes = word.as_bytes();
        if bytes.len() < 2 || bytes[0] != b'-' {
            break;
        }
        words = behind;
        if bytes == b"--" {
            break;
        }
        words = match bytes.strip_prefix(b"--") {
            Some(long) => long_flag(long, words, client.flags(part), &mut flags)?,
            None => cluster(&bytes[1..], words, || client.flags(part), &mut flags)?,
        };
    }
    Ok((flags, words))
}

fn long_flag<'a>(
    word: &[u8],
    behind: &'a [OsString],
    mut table: impl Iterator<Item = &'static FlagSpec>,
    flags: &mut Vec<Flag>,
) -> Result<&'a [OsString], ParseError> {
    if matches!(word.first(), Some(b'-' | b'=')) {
        return Err(ParseError::BadSyntax(format!("--{}", lossy(word))));
    }
    let equals = word.iter().position(|byte| *byte == b'=');
    let (name, value) = match equals {
        Some(at) => (&word[..at], Some(OsString::from_vec(word[at + 1..].to_vec()))),
        None => (word, None),
    };
    let name = lossy(name);
    let spec = table.find(|spec| spec.long == name).ok_or(ParseError::UnknownFlag(name))?;
    let (value, behind) = match (value, spec.takes, behind.split_first()) {
        (Some(value), _, _) => (Some(value), behind),
        (None, Takes::Nothing, _) => (None, behind),
        (None, Takes::Value, Some((next, behind))) => (Some(next.clone()), behind),
        (None, Takes::Value, None) => return Err(ParseError::NeedsValue(spec.long)),
    };
    push(flags, spec, value)?;
    Ok(behind)
}

/// `-itd`, `-p8080:80`, `-e=A=1`.
fn cluster<'a, T: Iterator<Item = &'static FlagSpec>>(
    word: &[u8],
    behind: &'a [OsString],
    table: impl Fn() -> T,
    flags: &mut Vec<Flag>,
) -> Result<&'a [OsString], ParseError> {
    let mut letters = word;
    while let Some((letter, after)) = letters.split_first() {
        let letter = char::from(*letter);
        let spec = table()
            .find(|spec| spec.short == Some(letter))
            .ok_or_else(|| ParseError::UnknownShorthand(letter, lossy(letters)))?;
        let rest = |bytes: &[u8]| Some(OsString::from_vec(bytes.to_vec()));
        if after.len() > 1 && after[0] == b'=' {
            push(flags, spec, rest(&after[1..]))?;
            return Ok(behind);
        }
        if spec.takes == Takes::Nothing {
            push(flags, spec, None)?;
            letters = after;
            continue;
        }
        if !after.is_empty() {
            push(flags, spec, rest(after))?;
            return Ok(behind);
        }
        let Some((next, behind)) = behind.split_first() else {
            return Err(ParseError::ShorthandNeedsValue(letter, lossy(letters)));
        };
        push(flags, spec, Some(next.clone()))?;
        return Ok(behind);
    }
    Ok(behind)
}

fn push(
    flags: &mut Vec<Flag>,
    spec: &'static FlagSpec,
    value: Option<OsString>,
) -> Result<(), ParseError> {
    let flag = Flag { spec, value };
    if spec.takes == Takes::Nothing {
        flag.switched_on()?;
    }
    flags.push(flag);
    Ok(())
}

fn lossy(bytes: &[u8]) -> String {
    OsStr::from_bytes(bytes).to_string_lossy().into_owned()
}

impl Flag {
    /// The flag's value as text, empty for a switch.
    pub fn text(&self) -> String {
        self.value.as_deref().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The flag as one word.
    pub fn word(&self) -> OsString {
        let mut word = OsString::from(format!("--{}", self.spec.long));
        if let Some(value) = &self.value {
            word.push("=");
            word.push(value);
        }
        word
    }

    /// What a switch is set to, by the rules of Go's `ParseBool`.
    fn switched_on(&self) -> Result<bool, ParseError> {
        match self.text().as_str() {
            "" if self.value.is_none() => Ok(true),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(ParseError::NotABool { flag: self.spec.long, value: other.to_owned() }),
        }
    }
}

impl DockerRun {
    /// The values of a flag that can be repeated.
    pub fn values(&self, long: &str) -> impl Iterator<Item = String> {
        let flags = self.flags.iter().filter(move |flag| flag.spec.long == long);
        flags.map(Flag::text)
    }

    /// Whether a switch is on; the last one counts.
    pub fn switch(&self, long: &str) -> bool {
        let last = self.flags.iter().rev().find(|flag| flag.spec.long == long);
        last.is_some_and(|flag| flag.switched_on().unwrap_or(false))
    }

    /// What stands behind the image.
    pub fn words(&self) -> Vec<String> {
        self.rest.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// The flags that say which engine, wherever they stand.
    pub fn all_globals(&self) -> impl DoubleEndedIterator<Item = &Flag> {
        let behind = self.flags.iter().filter(|flag| self.client.is_global(flag.spec));
        self.globals.iter().chain(behind)
    }

    /// The value of one of those; the last one counts.
    pub fn global(&self, long: &str) -> Option<String> {
        self.all_globals().rev().find(|flag| flag.spec.long == long).map(Flag::text)
    }

    /// Whether a switch between `docker` and `run` is on, if it is there; the last one counts.
    pub fn global_switch(&self, long: &str) -> Option<bool> {
        let last = self.globals.iter().rev().find(|flag| flag.spec.long == long)?;
        last.switched_on().ok()
    }

    /// The image's name.
    pub fn image(&self) -> String {
        self.rest.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
