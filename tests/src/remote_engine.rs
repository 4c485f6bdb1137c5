//! An engine on a machine of its own, which shares no file, socket, process or network with this one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::docker::Docker;
use crate::lab::{MUSL, PROBE};
use crate::{processes, skip, toolbox, wait};

/// The machine; gone with this.
pub struct RemoteEngine {
    name: String,
    folder: TempDir,
    /// Where it is reached.
    pub address: String,
    bare: bool,
}

impl RemoteEngine {
    /// One that is reached over TLS, and over ssh; `None` (and a loud line) where none can be made.
    ///
    /// # Errors
    /// If it does not start.
    pub fn tls(test: &str) -> Result<Option<Self>> {
        Self::up(test, "tls", &[])
    }

    /// One that is reached over bare TCP, with more words for dockerd.
    ///
    /// # Errors
    /// If it does not start.
    pub fn bare(test: &str, words: &[&str]) -> Result<Option<Self>> {
        Self::up(test, "bare", words)
    }

    /// One behind a link that takes 25 ms each way, loses 1 % of the frames, and delivers as many
    /// late.
    ///
    /// # Errors
    /// If it does not start.
    pub fn rough(test: &str) -> Result<Option<Self>> {
        Self::up_with(test, "bare", &[], &[("ROUGH", "25 1 1"), ("DISK", "1g")])
    }

    /// One whose disk has no more room than `size`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn small(test: &str, size: &str) -> Result<Option<Self>> {
        Self::up_with(test, "bare", &[], &[("DISK", size)])
    }

    /// Kills its dockerd, which is started again; waits until it answers.
    ///
    /// # Errors
    /// If it never does.
    pub fn restart(&self) -> Result<()> {
        let killed = Command::new(script()).args(["kill", &self.name]).status()?;
        ensure!(killed.success(), "no dockerd to be killed");
        wait::until("dockerd to be there again", || self.docker().run(&["version"]).map(Some))?;
        Ok(())
    }

    /// A folder of its disk, as this machine sees it.
    ///
    /// # Errors
    /// If it is gone.
    pub fn disk(&self) -> Result<PathBuf> {
        let pid = std::fs::read_to_string(format!("/run/mirrord-remote/{}/pid", self.name))?;
        let inside = processes::family(pid.trim().parse()?);
        let dockerd = inside.iter().find(|process| process.args.iter().any(|arg| arg == "dockerd"));
        let dockerd = dockerd.context("its dockerd")?.pid;
        Ok(format!("/proc/{dockerd}/root/var/lib/mirrord-remote/{}", self.name).into())
    }

    fn up(test: &str, how: &str, words: &[&str]) -> Result<Option<Self>> {
        Self::up_with(test, how, words, &[])
    }

    fn up_with(
        test: &str,
        how: &str,
        words: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Option<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let ready_made = Path::new("/usr/local/lib/mirrord-engine/bin/dockerd").exists();
        if !geteuid().is_root() || !(ready_made || toolbox::has("dockerd")) {
            skip::missing(test, "root and dockerd, to make another machine")?;
            return Ok(None);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{number}x{}", std::process::id());
        let folder = tempfile::tempdir()?;
        let output = Command::new(script())
            .args(["up", &name])
            .arg(folder.path())
            .arg(how)
            .args(words)
            .envs(env.iter().copied())
            .output()
            .context("make another machine")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "another machine: {words}");
        let address = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let engine = Self { name, folder, address, bare: how == "bare" };
        engine.fill()?;
        Ok(Some(engine))
    }

    /// Brings the images of small apps there.
    fn fill(&self) -> Result<()> {
        let mut save = Docker::local().command();
        let mut save = save.args(["save", PROBE, MUSL]).stdout(Stdio::piped()).spawn()?;
        let image = save.stdout.take().context("a pipe")?;
        let load = self.docker().command().args(["load", "-q"]).stdin(image).output()?;
        ensure!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        ensure!(save.wait()?.success(), "docker save failed");
        Ok(())
    }

    /// The engine over TCP, encrypted unless it is bare.
    #[must_use]
    pub fn docker(&self) -> Docker {
        match self.bare {
            true => Docker::at(format!("tcp://{}:2375", self.address)),
            false => Docker::at(format!("tcp://{}:2376", self.address))
                .with("DOCKER_TLS_VERIFY", "1")
                .with("DOCKER_CERT_PATH", self.certificates().to_string_lossy()),
        }
    }

    /// The folder of a user's certificates.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.folder.path().join("tls")
    }

    /// The engine over ssh: the user's ssh knows the machine by a configuration of its own.
    #[must_use]
    pub fn ssh(&self) -> Docker {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.folder.path().join("bin").display());
        Docker::at("ssh://root@remote-box").with("PATH", path)
    }
}

impl Drop for RemoteEngine {
    fn drop(&mut self) {
        let _ = Command::new(script()).args(["down", &self.name]).output();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("remote-engine")
}
