//! A project as compose resolves it, and the files that it is made from.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::line::Line;
use crate::config;
use crate::failure::Failure;

/// Where compose looks for its file, and for one more beside it.
const FILES: &[&str] =
    &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: &[&str] = &[
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// The first version that tells a provider what its service is.
const NEEDED: (u32, u32) = (5, 6);

/// The project.
pub struct Project {
    /// What compose tells of it, as it told it.
    pub text: String,
    /// The same.
    pub model: Value,
    /// The files.
    pub files: Vec<String>,
}

impl Project {
    /// The one of a line.
    ///
    /// # Errors
    /// Compose cannot be called, is too old, or refuses the project: then in its own words.
    pub fn of(line: &Line) -> Result<Self, Failure> {
        if line.files.iter().any(|file| file == "-") {
            return Err(Failure::new("a compose file on standard input can be read only once")
                .hint("write it to a file, and name that with -f"));
        }
        let version = ask(line, &["version", "--short"])?;
        match super::version::number(version.trim()) {
            Some(number) if number < NEEDED => {
                let text = format!("docker compose {} cannot be given a target", version.trim());
                return Err(Failure::new(text)
                    .hint(format!("docker compose {}.{}.0 or newer can", NEEDED.0, NEEDED.1)));
            }
            _ => {}
        }
        let text = ask(line, &["config"])?;
        let mut model = config::yaml_value(&text).map_err(|cause| {
            Failure::new("cannot read what 'docker compose config' says").because(cause)
        })?;
        plain(&mut model);
        let files = match line.files.as_slice() {
            [] => found(line)?,
            files => files.to_vec(),
        };
        Ok(Self { text, model, files })
    }
}

/// Compose doubles the dollars of what it tells, so that it can be read again as a file.
fn plain(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace("$$", "$"),
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(map) => map.values_mut().for_each(plain),
        _ => {}
    }
}

/// docker with its flags and compose's.
pub fn compose(line: &Line) -> Command {
    let mut command = Command::new("docker");
    command.args(&line.docker).arg("compose").args(&line.flags);
    command
}

fn ask(line: &Line, words: &[&str]) -> Result<String, Failure> {
    let mut command = compose(line);
    let output = command.args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| Failure::caused_by("cannot start docker", &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let failure = Failure::new(format!("'docker compose {}' failed", words.join(" ")));
        return Err(failure.because(said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The files that compose finds by itself; nobody else may say so once one is named.
fn found(line: &Line) -> Result<Vec<String>, Failure> {
    let environment = ask(line, &["config", "--environment"])?;
    let set = |name: &str| {
        let value = environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.filter(|value| !value.is_empty())
    };
    if let Some(files) = set("COMPOSE_FILE") {
        let separator = set("COMPOSE_PATH_SEPARATOR").unwrap_or(":");
        return Ok(files.split(separator).map(str::to_owned).collect());
    }
    let here = || env::current_dir().unwrap_or_default();
    let start = line.folder.as_ref().map_or_else(here, PathBuf::from);
    let there = |folder: &Path, names: &[&str]| {
        let files = names.iter().map(|name| folder.join(name));
        files.filter(|file| file.is_file()).map(|file| file.to_string_lossy().into_owned()).next()
    };
    for folder in start.ancestors() {
        if let Some(file) = there(folder, FILES) {
            return Ok([file].into_iter().chain(there(folder, OVERRIDES)).collect());
        }
    }
    Err(Failure::new("there is no compose file here").hint("name it: docker compose -f FILE …"))
}
