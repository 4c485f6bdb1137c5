//! The `docker` or `podman` command, as a test uses it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// One engine.
#[derive(Debug, Clone)]
pub struct Docker {
    /// The client's name.
    pub program: &'static str,
    env: Vec<(String, String)>,
    user: Option<User>,
}

/// Whoever runs an engine without root.
#[derive(Debug, Clone)]
struct User {
    uid: u32,
    gid: u32,
    home: String,
    run: String,
}

/// The user that `tests/podman` makes.
const ROOTLESS: &str = "mirrord-rootless";

impl Default for Docker {
    fn default() -> Self {
        Self { program: "docker", env: Vec::new(), user: None }
    }
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

    /// Podman of this user.
    #[must_use]
    pub fn podman() -> Self {
        Self { program: "podman", ..Self::default() }
    }

    /// Podman of a user without rights; `None` if there is no such user.
    #[must_use]
    pub fn rootless_podman() -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").ok()?;
        let line = users.lines().find(|line| line.split(':').next() == Some(ROOTLESS))?;
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, uid, gid, _, home, _] = fields[..] else { return None };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let user = User { uid, gid, home: home.to_owned(), run: format!("/run/user/{uid}") };
        Some(Self { user: Some(user), ..Self::podman() })
    }

    /// Makes `command` talk to this engine, as the user whose it is.
    pub fn aim(&self, command: &mut Command) {
        if let Some(User { uid, gid, home, run }) = &self.user {
            command.uid(*uid).gid(*gid).current_dir("/");
            command.env("HOME", home).env("XDG_RUNTIME_DIR", run).env("USER", ROOTLESS);
            command.env_remove("LOGNAME").env_remove("XDG_CONFIG_HOME").env_remove("TMPDIR");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }

    /// The program at `path`, or a copy of it that the user of this engine may execute.
    ///
    /// # Errors
    /// If it can't be copied.
    pub fn executable(&self, path: PathBuf) -> Result<PathBuf> {
        if self.user.is_none() {
            return Ok(path);
        }
        let name = path.file_name().unwrap_or(OsStr::new("program")).to_owned();
        let folder = PathBuf::from(format!("/tmp/{ROOTLESS}-{}", std::process::id()));
        let copy = folder.join(name);
        if !copy.exists() {
            fs::create_dir_all(&folder)?;
            let part = folder.join(format!("part-{:?}", std::thread::current().id()));
            fs::copy(path, &part).context("copy the program for the user without rights")?;
            fs::rename(part, &copy)?;
        }
        Ok(copy)
    }

    /// The client, aimed at this engine, nothing on its standard input.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program);
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
        let output = self.command().args(&words).output().context("run the client")?;
        ensure!(
            output.status.success(),
            "{} {}: {}{}",
            self.program,
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
        let template =
            if self.program == "docker" { "{{.Server.Version}}" } else { "{{.Version}}" };
        self.run(&["version", "--format", template]).is_ok()
    }
}
