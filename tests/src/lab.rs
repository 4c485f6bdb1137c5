//! Networks and containers with names of their own, gone when the test ends.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};

use crate::docker::Docker;
use crate::remote::Probe;
use crate::{skip, wait};

/// The image that holds the probe and nothing else.
pub const PROBE: &str = "mirrord-apps/probe";
/// Debian with Python, Node, curl, dig, nc and ip.
pub const DEBIAN: &str = "mirrord-apps/debian";
/// A static Go program.
pub const GO: &str = "mirrord-apps/go";
/// A C program that needs musl's loader.
pub const MUSL: &str = "mirrord-apps/musl";

/// One test's things in an engine.
pub struct Lab {
    /// The engine.
    pub docker: Docker,
    prefix: String,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    containers: Vec<String>,
    networks: Vec<String>,
    volumes: Vec<String>,
}

impl Lab {
    /// A lab on the engine of the environment; `None` (and a loud line) where none answers.
    ///
    /// # Errors
    /// If none answers and `CI=true`.
    pub fn open(test: &str) -> Result<Option<Self>> {
        Self::open_at(test, Docker::local())
    }

    /// A lab on that engine.
    ///
    /// # Errors
    /// If it does not answer and `CI=true`.
    pub fn open_at(test: &str, docker: Docker) -> Result<Option<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !docker.answers() {
            skip::missing(test, "a Docker Engine")?;
            return Ok(None);
        }
        if docker.run(&["image", "inspect", PROBE]).is_err() {
            skip::missing(test, "the image mirrord-apps/probe (tests/images)")?;
            return Ok(None);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("lab{:x}n{number}", std::process::id());
        Ok(Some(Self { docker, prefix, made: Mutex::default() }))
    }

    /// The name in the engine of what a test calls `name`.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A user-defined network, without a way out.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn network(&self, name: &str) -> Result<String> {
        self.network_with(name, &["--internal"])
    }

    /// A user-defined network.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn network_with(&self, name: &str, words: &[&str]) -> Result<String> {
        let name = self.name(name);
        self.remember(|made| made.networks.push(name.clone()));
        self.docker.run(&[&["network", "create"], words, &[name.as_str()]].concat())?;
        Ok(name)
    }

    /// A volume, gone with the lab.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn volume(&self, name: &str) -> Result<String> {
        let name = self.name(name);
        self.remember(|made| made.volumes.push(name.clone()));
        self.docker.run(&["volume", "create", &name])?;
        Ok(name)
    }

    /// A container to be started.
    #[must_use]
    pub fn container(&self, name: &str) -> Recipe<'_> {
        let name = self.name(name);
        Recipe { lab: self, words: vec!["--name".into(), name.clone()], env: Vec::new(), name }
    }

    /// Makes sure that a container of that name goes with the lab.
    pub fn adopt(&self, name: &str) {
        self.remember(|made| made.containers.push(name.to_owned()));
    }

    fn remember(&self, note: impl FnOnce(&mut Made)) {
        note(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let made = std::mem::take(self.made.get_mut().unwrap_or_else(PoisonError::into_inner));
        let remove = |words: &[&str], names: &[String]| {
            if !names.is_empty() {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let _ = self.docker.run(&[words, &names].concat());
            }
        };
        remove(&["rm", "-fv"], &made.containers);
        // Podman does not know at once that nobody is on them.
        let force: &[_] = if self.docker.program == "podman" { &["-f"] } else { &[] };
        remove(&[&["network", "rm"], force].concat(), &made.networks);
        remove(&["volume", "rm", "-f"], &made.volumes);
    }
}

/// The words of a `docker run`.
pub struct Recipe<'lab> {
    lab: &'lab Lab,
    name: String,
    words: Vec<String>,
    env: Vec<(String, String)>,
}

impl<'lab> Recipe<'lab> {
    /// Joins that network.
    #[must_use]
    pub fn on(self, network: &str) -> Self {
        self.with(["--network", network])
    }

    /// Is known there by that name too.
    #[must_use]
    pub fn alias(self, alias: &str) -> Self {
        self.with(["--network-alias", alias])
    }

    /// More words of `docker run`.
    #[must_use]
    pub fn with<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// A variable of the environment of `docker run` itself.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts `image` with `command` in the background.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn start(self, image: &str, command: &[&str]) -> Result<Container<'lab>> {
        self.lab.adopt(&self.name);
        let mut words = vec!["run".to_owned(), "-d".into()];
        words.extend(self.words);
        words.push(image.into());
        words.extend(command.iter().map(|&word| word.to_owned()));
        self.lab.docker.run(&words)?;
        Ok(Container { lab: self.lab, name: self.name, probe: None })
    }

    /// Starts a `probe shell` and waits until it runs.
    ///
    /// # Errors
    /// If it does not.
    pub fn probe(self) -> Result<Container<'lab>> {
        self.lab.adopt(&self.name);
        let mut child = self
            .lab
            .docker
            .command()
            .envs(self.env)
            .args(["run", "-i", "--rm"])
            .args(&self.words)
            .args([PROBE, "shell"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run docker")?;
        let shell = Shell { probe: take_probe(&mut child)?, child };
        let container = Container { lab: self.lab, name: self.name, probe: Some(shell) };
        container.probe().ready().with_context(|| container.name.clone())?;
        // It may speak before the engine has written down that it runs, and is listed then.
        wait::until(&format!("{} among the running", container.name), || {
            let name = format!("name=^{}$", container.name);
            let listed = container.lab.docker.run(&["ps", "-q", "--filter", &name])?;
            Ok((!listed.trim().is_empty()).then_some(()))
        })?;
        Ok(container)
    }
}

/// The probe at the other end of a child's pipes.
///
/// # Errors
/// If the child was not started with pipes.
pub fn take_probe(child: &mut Child) -> Result<Probe> {
    let stdin = child.stdin.take().ok_or_else(|| anyhow!("no pipe to the probe"))?;
    let stdout = child.stdout.take().ok_or_else(|| anyhow!("no pipe from the probe"))?;
    Ok(Probe::new(stdin, stdout))
}

struct Shell {
    probe: Probe,
    child: Child,
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.probe.close();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running container.
pub struct Container<'lab> {
    lab: &'lab Lab,
    /// Its name in the engine.
    pub name: String,
    probe: Option<Shell>,
}

impl Container<'_> {
    /// The probe in it.
    ///
    /// # Panics
    /// If it was not started with [`Recipe::probe`].
    #[must_use]
    pub fn probe(&self) -> &Probe {
        &self.probe.as_ref().expect("a container that runs the probe").probe
    }

    /// What `mirrord -t` takes.
    #[must_use]
    pub fn target(&self) -> String {
        format!("container/{}", self.name)
    }

    /// Its IPv4 address on its first network.
    ///
    /// # Errors
    /// If it has none.
    pub fn address(&self) -> Result<String> {
        self.lab
            .docker
            .inspect(&self.name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}\n{{end}}")
            .map(|text| text.lines().next().unwrap_or("").to_owned())
    }

    /// Its IPv4 address on one of its networks.
    ///
    /// # Errors
    /// If it is not there.
    pub fn address_on(&self, network: &str) -> Result<String> {
        let template = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        self.lab.docker.inspect(&self.name, &template)
    }

    /// Its full id.
    ///
    /// # Errors
    /// If it is gone.
    pub fn id(&self) -> Result<String> {
        self.lab.docker.inspect(&self.name, "{{.Id}}")
    }

    /// What `docker exec` of `command` says.
    ///
    /// # Errors
    /// If it fails.
    pub fn exec(&self, command: &[&str]) -> Result<String> {
        self.lab.docker.run(&[&["exec", &self.name], command].concat())
    }

    /// Everything it has written so far.
    ///
    /// # Errors
    /// If it is gone.
    pub fn logs(&self) -> Result<String> {
        let output = self.lab.docker.command().args(["logs", &self.name]).output()?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Waits until `command` works inside.
    ///
    /// # Errors
    /// If it never does.
    pub fn until(&self, command: &[&str]) -> Result<String> {
        wait::until(&format!("{command:?} in {}", self.name), || self.exec(command).map(Some))
    }
}
