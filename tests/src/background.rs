//! Sessions whose command has gone, and what `mirrord status` and `mirrord stop` say of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Lab, PROBE};
use crate::mirrord::{Finished, Mirrord, binary};
use crate::scene::Scene;
use crate::{processes, wait};

/// How long a session may take to be gone after its app.
const GONE: Duration = Duration::from_secs(15);

/// A folder of sessions that are one test's alone.
pub struct Background<'lab> {
    lab: &'lab Lab,
    folder: TempDir,
}

impl<'lab> Background<'lab> {
    /// No session yet.
    ///
    /// # Errors
    /// If there is no folder to be had.
    pub fn new(lab: &'lab Lab) -> Result<Self> {
        Ok(Self { lab, folder: tempfile::tempdir()? })
    }

    /// The value of `XDG_RUNTIME_DIR`.
    #[must_use]
    pub fn folder(&self) -> String {
        self.folder.path().to_string_lossy().into_owned()
    }

    /// The same command with its session here.
    #[must_use]
    pub fn of(&self, mirrord: Mirrord<'lab>) -> Mirrord<'lab> {
        mirrord.env("XDG_RUNTIME_DIR", &self.folder())
    }

    /// Runs `mirrord` as `docker run -d`, to its end.
    ///
    /// # Errors
    /// If something still holds its output after it has ended.
    pub fn run(
        &self,
        mirrord: Mirrord<'lab>,
        name: &str,
        image: &str,
        words: &[&str],
    ) -> Result<Finished> {
        let name = self.lab.name(name);
        self.lab.adopt(&name);
        finish(&self.of(mirrord).docker(["-d"]).command(&name, image, words))
    }

    /// Runs `mirrord` with those words, and nothing before them.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn mirrord(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary());
        self.lab.docker.aim(&mut command);
        let command = command.args(words).env("XDG_RUNTIME_DIR", self.folder.path());
        command.output().with_context(|| format!("run mirrord {words:?}"))
    }

    /// What `mirrord status` says of the sessions of this folder.
    ///
    /// # Errors
    /// If it says no list.
    pub fn status(&self) -> Result<Vec<Value>> {
        let output = self.mirrord(&["status", "-o", "json"])?;
        ensure!(output.status.success(), "{output:?}");
        let all: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        // Of those that only the engine knows, nobody's keeper is.
        Ok(all.into_iter().filter(|session| session["keeper"] != 0).collect())
    }

    /// What it says of the session whose app is the container of that name.
    ///
    /// # Errors
    /// If it does not know it.
    pub fn session(&self, name: &str) -> Result<Value> {
        let name = self.lab.name(name);
        let all = self.status()?;
        let found = all.iter().find(|session| session["app"]["container"] == *name);
        found.cloned().with_context(|| format!("{name} is not among {all:#?}"))
    }

    /// Waits until no container of ours is left of a session.
    ///
    /// # Errors
    /// If one stays; the message names it.
    pub fn until_gone(&self, session: &str) -> Result<()> {
        let filters = [format!("label=mirrord.session={session}"), "label=mirrord.role".to_owned()];
        let mut left = String::new();
        wait::within(GONE, "sidecar and agent to be gone", || {
            let [session, role] = &filters;
            let words = ["ps", "-a", "--filter", session, "--filter", role];
            left = self.lab.docker.run(&[&words[..], &["--format", "{{.Names}}"]].concat())?;
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| left.clone())
    }

    /// Waits until nothing of any session is in the folder.
    ///
    /// # Errors
    /// If something stays; the message names it.
    pub fn until_empty(&self) -> Result<()> {
        let mut left = Vec::new();
        wait::within(GONE, "an empty folder", || {
            left = self.files()?;
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| format!("{left:?}"))
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        match std::fs::read_dir(self.folder.path().join("mirrord")) {
            Ok(entries) => Ok(entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let _ = self.mirrord(&["stop", "--all"]);
    }
}

/// Runs a command whose output nobody may hold once it has ended.
///
/// # Errors
/// If it can't be started, or its output does not end with it.
pub fn finish(command: &Command) -> Result<Finished> {
    let mut limited = Command::new("timeout");
    limited.args(["-s", "KILL", "60"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    let output = limited.stdin(Stdio::null()).output()?;
    Ok(Finished {
        code: crate::mirrord::code_of(output.status),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// The keeper that `mirrord status` names.
///
/// # Errors
/// If it does not run.
pub fn keeper(session: &Value) -> Result<processes::Process> {
    let all = processes::all();
    let found = all.into_iter().find(|process| session["keeper"] == process.pid);
    found.with_context(|| format!("no keeper of {session}"))
}

/// `docker run -d`: only the id is printed, `docker restart` keeps the session, `mirrord stop` ends
/// it and the container, and nothing of it is left.
///
/// # Errors
/// If it is not so.
pub fn outlives_its_command(scene: &Scene<'_>, flags: &[&str]) -> Result<()> {
    let lab = scene.lab;
    let background = Background::new(lab)?;
    let mirrord = scene.mirrord().with(["--steal"]).kept().docker(flags.to_vec());
    let done =
        background.run(mirrord, "behind", PROBE, &["serve", "http", "0.0.0.0:80", "mine"])?;
    let (name, inspect) =
        (lab.name("behind"), |what| lab.docker.inspect(&lab.name("behind"), what));
    ensure!(
        (done.code, done.stdout) == (0, format!("{}\n", inspect("{{.Id}}")?)),
        "{}",
        done.stderr
    );
    scene.until_answered_by("mine", 80)?;
    let session = background.session("behind")?["session"].clone();
    lab.docker.run(&["restart", "-t", "1", &name])?;
    scene.until_answered_by("mine", 80)?;
    ensure!(background.session("behind")?["session"] == session);
    let session = session.as_str().context("a session")?;
    let stopped = background.mirrord(&["stop", session])?;
    ensure!(stopped.status.success(), "{stopped:?}");
    ensure!(inspect("{{.State.Running}}")? == "false");
    background.until_gone(session)?;
    background.until_empty()?;
    ensure!(scene.answers(80)?["name"] == "original");
    lab.docker.run(&["rm", &name]).map(drop)
}
