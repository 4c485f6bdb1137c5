//! The `docker` command, as a test uses it.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// One engine.
#[derive(Debug, Clone, Default)]
pub struct Docker {
    env: Vec<(String, String)>,
}

impl Docker {
    /// The engine of the environment.
    #[must_use]
    pub fn local() -> Self {
        Self::default()
    }

    /// The engine at `host`, as `DOCKER_HOST` names it.
    #[must_use]
    pub fn at(host: impl Into<String>) -> Self {
        Self::default().with("DOCKER_HOST", host)
    }

    /// With a variable of the client's environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Makes `command` talk to this engine.
    pub fn aim(&self, command: &mut Command) {
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }

    /// `docker`, aimed at this engine, nothing on its standard input.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        self.aim(&mut command);
        command.stdin(Stdio::null());
        command
    }

    /// Runs `docker WORDS` to its end; its trimmed standard output.
    ///
    /// # Errors
    /// If it can't be started or fails; its standard error is in the message.
    pub fn run<W: AsRef<str>>(&self, words: &[W]) -> Result<String> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let output = self.command().args(&words).output().context("run docker")?;
        ensure!(
            output.status.success(),
            "docker {}: {}{}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim(),
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// One field of `docker inspect`, by its Go template.
    ///
    /// # Errors
    /// If there is no such object.
    pub fn inspect(&self, object: &str, template: &str) -> Result<String> {
        self.run(&["inspect", "--format", template, object])
    }

    /// Whether an engine answers.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.run(&["version", "--format", "{{.Server.Version}}"]).is_ok()
    }
}
