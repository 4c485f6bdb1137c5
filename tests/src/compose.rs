//! A compose project in a folder of its own, and the real compose.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::background::{Background, finish};
use crate::lab::Lab;
use crate::mirrord::{Finished, binary};
use crate::{skip, wait};

/// How long the engine may take to forget what a project removed.
const SOON: Duration = Duration::from_secs(15);
/// What a project can leave in an engine.
const KINDS: [(&[&str], &str); 3] = [
    (&["ps", "-aq", "--filter"], "label"),
    (&["network", "ls", "-q", "--filter"], "label"),
    (&["volume", "ls", "-q", "--filter"], "label"),
];

/// A project.
pub struct Project<'lab> {
    lab: &'lab Lab,
    folder: TempDir,
    /// Its name.
    pub name: String,
    /// Its sessions.
    pub background: Background<'lab>,
    env: Vec<(String, String)>,
}

impl<'lab> Project<'lab> {
    /// One with that `compose.yaml`; `None` (and a loud line) where there is no compose.
    ///
    /// # Errors
    /// If there is none and `CI=true`.
    pub fn new(lab: &'lab Lab, name: &str, file: &str) -> Result<Option<Self>> {
        if lab.docker.run(&["compose", "version"]).is_err() {
            skip::missing(name, "docker compose")?;
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("bin"))?;
        let program = fs::canonicalize(binary()).context("the executable")?;
        symlink(program, folder.path().join("bin/mirrord"))?;
        let (name, background) = (lab.name(name), Background::new(lab)?);
        let project = Self { lab, folder, name, background, env: Vec::new() };
        project.write("compose.yaml", file)?;
        Ok(Some(project))
    }

    /// With a variable of compose's environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Writes a file of the project.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, text).with_context(|| format!("write {name}"))
    }

    /// Where a file of the project is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program in the project's folder, which finds mirrord.
    #[must_use]
    pub fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        self.lab.docker.aim(&mut command);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("XDG_RUNTIME_DIR", self.background.folder())
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("COMPOSE_ANSI", "never")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .args(words);
        command
    }

    /// Runs `docker compose WORDS` to its end.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn compose(&self, words: &[&str]) -> Result<Finished> {
        finish(&self.command("docker", &[&["compose"], words].concat()))
    }

    /// The same, which is to go well; its standard output.
    ///
    /// # Errors
    /// If it fails.
    pub fn must(&self, words: &[&str]) -> Result<String> {
        let done = self.compose(words)?;
        ensure!(done.code == 0, "docker compose {words:?}: {}{}", done.stderr, done.stdout);
        Ok(done.stdout)
    }

    /// Runs `mirrord OPTIONS docker compose WORDS` to its end.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn mirrord(&self, options: &[&str], words: &[&str]) -> Result<Finished> {
        let program = binary().to_string_lossy().into_owned();
        finish(&self.command(&program, &[options, &["docker", "compose"], words].concat()))
    }

    /// The same without options, which is to go well; its standard output.
    ///
    /// # Errors
    /// If it fails.
    pub fn wrapped(&self, words: &[&str]) -> Result<String> {
        let done = self.mirrord(&[], words)?;
        ensure!(done.code == 0, "mirrord docker compose {words:?}: {}{}", done.stderr, done.stdout);
        Ok(done.stdout)
    }

    /// What a command in a service's container says.
    ///
    /// # Errors
    /// If it fails.
    pub fn exec(&self, service: &str, words: &[&str]) -> Result<String> {
        self.must(&[&["exec", "-T", service], words].concat())
    }

    /// What a service of the project gets from `address` by HTTP, once it answers.
    ///
    /// # Errors
    /// If it never does.
    pub fn fetch(&self, service: &str, address: &str) -> Result<String> {
        wait::until(&format!("{address} to answer {service}"), || {
            self.exec(service, &["curl", "-sS", "-m", "5", address]).map(Some)
        })
    }

    /// The container of a service.
    #[must_use]
    pub fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.name)
    }

    /// The sidecar of a provider's service.
    #[must_use]
    pub fn sidecar(&self, service: &str) -> String {
        format!("{}-{service}", self.name)
    }

    /// What this machine gets by HTTP from a published port of a container, once it answers.
    ///
    /// # Errors
    /// If it never does.
    pub fn published(&self, container: &str, port: &str) -> Result<String> {
        wait::until(&format!("{container} to answer on its published port {port}"), || {
            let listed = self.lab.docker.run(&["port", container, port])?;
            let address = listed.lines().next().context("a published port")?;
            let mut stream = TcpStream::connect(address.replace("0.0.0.0", "127.0.0.1"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET / HTTP/1.0\r\nHost: here\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(Some(answer).filter(|answer| !answer.is_empty()))
        })
    }

    /// Waits until the engine has nothing of the project, nor this machine of a session of it.
    ///
    /// # Errors
    /// If something stays; the message names it.
    pub fn until_nothing_is_left(&self) -> Result<()> {
        let mut left = Vec::new();
        wait::within(SOON, "nothing to be left", || {
            left.clear();
            for project in ["com.docker.compose.project", "mirrord.compose.project"] {
                for (words, filter) in KINDS {
                    let filter = format!("{filter}={project}={}", self.name);
                    let found = self.lab.docker.run(&[words, &[filter.as_str()]].concat())?;
                    left.extend(found.lines().map(|id| format!("{words:?} {id}")));
                }
            }
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| format!("left behind: {left:?}"))?;
        self.background.until_empty()
    }

    /// The only session's id.
    ///
    /// # Errors
    /// If there is none, or there are several.
    pub fn session(&self) -> Result<String> {
        let all = self.background.status()?;
        ensure!(all.len() == 1, "{all:#?}");
        Ok(all[0]["session"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let _ = self.compose(&["--profile", "*", "down", "-v", "-t", "0", "--remove-orphans"]);
        let label = format!("label=mirrord.compose.project={}", self.name);
        if let Ok(left) = self.lab.docker.run(&["ps", "-aq", "--filter", &label]) {
            left.lines().for_each(|id| drop(self.lab.docker.run(&["rm", "-f", id])));
        }
    }
}
