//! `mirrord exec`: the app is a process of this machine.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::lab::{Lab, take_probe};
use crate::mirrord::{Finished, Session, binary};
use crate::toolbox;

/// A `mirrord … exec -- …` to be started.
pub struct Exec<'lab> {
    lab: &'lab Lab,
    options: Vec<String>,
    env: Vec<(String, String)>,
}

impl<'lab> Exec<'lab> {
    /// In the place of `target`, a word of `-t`.
    #[must_use]
    pub fn new(lab: &'lab Lab, target: &str) -> Self {
        Self { lab, options: vec!["-t".into(), target.into()], env: Vec::new() }
    }

    /// More options of mirrord.
    #[must_use]
    pub fn with<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.options.extend(words.into_iter().map(Into::into));
        self
    }

    /// A variable of mirrord's own environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The command that would run `words`.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        self.lab.docker.aim(&mut command);
        command
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .args(&self.options)
            .args(["exec", "--"])
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// A `probe shell` as the app; waits until it runs.
    ///
    /// # Errors
    /// If the session does not come up; its standard error is in the message.
    pub fn probe(self) -> Result<Session<'lab>> {
        let program = toolbox::path("probe");
        let mut command = self.command(&[&program, "shell"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", binary().display()))?;
        let probe = take_probe(&mut child)?;
        let session = Session::of_process(self.lab, "probe".into(), child, Some(probe));
        session.app().ready().with_context(|| session.last_words())?;
        Ok(session)
    }

    /// Any app, in the background.
    ///
    /// # Errors
    /// If mirrord can't be started.
    pub fn start(self, words: &[&str]) -> Result<Session<'lab>> {
        let child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", binary().display()))?;
        let name = words.first().copied().unwrap_or_default().to_owned();
        Ok(Session::of_process(self.lab, name, child, None))
    }

    /// An app that ends by itself.
    ///
    /// # Errors
    /// If it does not end.
    pub fn finish(self, words: &[&str]) -> Result<Finished> {
        let mut session = self.start(words)?;
        drop(session.child.stdin.take());
        session.finish()
    }
}
