//! `mirrord docker compose …`: one more file for compose, then compose itself in our place.

use std::env;
use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use mirrord_compose::{Overlay, Refusal, Stand};

use super::line::Line;
use super::once;
use super::project::{self, Project};
use super::wanted::{self, Typed};
use crate::args::Options;
use crate::docker_run::client::DOCKER;
use crate::docker_run::network::NetworkError;
use crate::failure::{Failure, nearest};
use crate::front;

/// Verbs that make containers, which then have to stand in their targets' places.
const MAKE: &[&str] = &["up", "create", "run", "watch"];
/// Verbs that are about what was made, or about what would be.
const KNOW: &[&str] = &["down", "stop", "rm", "config", "convert"];

/// What is to be done.
pub enum Wrapped {
    /// The overlay is to be shown.
    Explained(String),
    /// Nothing more: it was compose's, and could not be started.
    Failed(Failure),
}

/// Runs compose with what the project needs on top of it; returns only if that cannot be, or if
/// nothing is to be started.
///
/// # Errors
/// The project, or what is asked for of it, is wrong.
pub fn run(options: &Options, words: &[OsString], line: &Line) -> Result<Wrapped, Failure> {
    let makes = MAKE.contains(&line.verb.as_str());
    let help = line.rest.iter().any(|word| word == "--help" || word == "-h");
    if help || !(makes || KNOW.contains(&line.verb.as_str())) {
        return Ok(Wrapped::Failed(front::replace(&DOCKER, words)));
    }
    let project = Project::of(line)?;
    let typed_words = before_docker();
    let typed = Typed {
        words: &typed_words,
        target: options.target.as_deref(),
        service: options.service.as_deref(),
    };
    let wanted = wanted::all(&project, &typed)?;
    if wanted.is_empty() {
        return match makes {
            true => Err(nobody()),
            false => Ok(Wrapped::Failed(front::replace(&DOCKER, words))),
        };
    }
    let overlay = Overlay::of(&project.model, &wanted, &super::request::program())
        .map_err(|refusal| refused(&refusal))?;
    refuse_scale(line, &overlay.stands)?;
    if options.explain {
        return Ok(Wrapped::Explained(overlay.to_string()));
    }
    let name = CString::new("mirrord.yaml").unwrap_or_default();
    let file = front::memory_file(&name, overlay.to_string().as_bytes())?;
    let mut composed = Composed { line, files: &project.files, overlay: file };
    if line.verb == "run" {
        return once::run(&mut composed, &project, &wanted, &overlay.stands).map(Wrapped::Failed);
    }
    Ok(Wrapped::Failed(composed.become_it(&line.rest, composed.command())))
}

/// Compose with the overlay.
pub struct Composed<'a> {
    /// As it was typed.
    pub line: &'a Line,
    files: &'a [String],
    overlay: OwnedFd,
}

impl Composed<'_> {
    /// docker, up to compose's verb.
    pub fn command(&self) -> Command {
        let mut command = project::compose(self.line);
        if self.line.files.is_empty() {
            command.args(self.files.iter().flat_map(|file| ["-f", file]));
        }
        command.args(["-f", &front::path_of(&self.overlay)]);
        command.envs(engine_variables(&self.line.docker));
        command
    }

    /// Becomes compose, with the line's own verb.
    pub fn become_it(&self, rest: &[OsString], mut command: Command) -> Failure {
        let error = command.arg(&self.line.verb).args(rest).exec();
        Failure::caused_by("cannot start docker", &error)
    }

    /// Runs compose with other words, out of the way of what the app says.
    pub fn beside(&self, words: &[&str]) -> Result<(), Failure> {
        let failed = |error| Failure::caused_by("cannot start docker", &error);
        let mut command = self.command();
        let output = command.args(words).stdin(Stdio::null()).output().map_err(failed)?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(once::last_words(&said))
            }
        }
    }
}

/// docker's flags for the engine, as a provider hears of them.
fn engine_variables(flags: &[OsString]) -> Vec<(&'static str, OsString)> {
    let names = [
        ("--context", "DOCKER_CONTEXT"),
        ("-c", "DOCKER_CONTEXT"),
        ("--host", "DOCKER_HOST"),
        ("-H", "DOCKER_HOST"),
        ("--config", "DOCKER_CONFIG"),
    ];
    let mut variables = Vec::new();
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        let text = flag.to_string_lossy();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (text.into_owned(), None),
        };
        if let Some((_, variable)) = names.iter().find(|(known, _)| *known == name) {
            variables
                .extend(value.or_else(|| flags.next().cloned()).map(|value| (*variable, value)));
        }
    }
    variables
}

/// The words that stand before `docker`.
fn before_docker() -> Vec<String> {
    let words = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    words.take_while(|word| word != "docker").filter(|word| word != "--explain").collect()
}

fn nobody() -> Failure {
    Failure::new("no service of the project stands in a target's place").hint(
        "add x-mirrord: {target: TYPE/NAME} to one, or name it: mirrord -t TYPE/NAME --service \
         NAME docker compose …",
    )
}

fn refuse_scale(line: &Line, stands: &[Stand]) -> Result<(), Failure> {
    for Stand { service: name, .. } in stands {
        if let Some(count) = line.scale(name).filter(|count| *count > 1) {
            return Err(refused(&Refusal::Several { name: name.clone(), count }));
        }
    }
    Ok(())
}

fn refused(refusal: &Refusal) -> Failure {
    let failure = Failure::new(refusal.to_string());
    match refusal {
        Refusal::Unknown { name, known } => {
            match nearest(name, known.iter().map(String::as_str)).first() {
                Some(near) => failure.hint(format!("did you mean {near}?")),
                None => failure.hint("see 'docker compose config --services'"),
            }
        }
        Refusal::Several { .. } => failure.hint("let it run once, or leave its target out"),
        Refusal::Mode { mode, .. } => {
            let error = match mode.as_str() {
                "host" => NetworkError::Host,
                "none" => NetworkError::None,
                other => NetworkError::Container(other.replace("container:", "")),
            };
            let why = error.to_string();
            failure.because(why.trim_start_matches("--network ")).hint("leave network_mode out")
        }
        Refusal::Links(_) => failure.hint("peers on its networks know each other by name"),
        Refusal::Provider(_) | Refusal::NoProject => failure,
    }
}
