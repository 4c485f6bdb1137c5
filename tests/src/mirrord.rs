//! The product's command line, run in the background with its output captured.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{DEBIAN, Lab, PROBE, take_probe};
use crate::processes::{self, Process};
use crate::remote::Probe;
use crate::{toolbox, wait};

/// How long a session may take to end.
const END: Duration = Duration::from_secs(30);

/// The executable: `MIRRORD_BIN`, or what `make build` leaves.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("MIRRORD_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dist/mirrord"),
        PathBuf::from,
    )
}

/// As a shell would say it: 128 + n for a signal.
#[must_use]
pub fn code_of(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|number| 128 + number)).unwrap_or(-1)
}

/// A `mirrord … docker run …` to be started.
pub struct Mirrord<'lab> {
    lab: &'lab Lab,
    options: Vec<String>,
    docker: Vec<String>,
    env: Vec<(String, String)>,
    kept: bool,
    folder: Option<PathBuf>,
}

impl<'lab> Mirrord<'lab> {
    /// In the place of `target`, a word of `-t`.
    #[must_use]
    pub fn new(lab: &'lab Lab, target: &str) -> Self {
        Self::targetless(lab).with(["-t", target])
    }

    /// In nobody's place.
    #[must_use]
    pub fn targetless(lab: &'lab Lab) -> Self {
        let (options, docker, env) = (Vec::new(), Vec::new(), Vec::new());
        Self { lab, options, docker, env, kept: false, folder: None }
    }

    /// More options of mirrord.
    #[must_use]
    pub fn with<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.options.extend(words.into_iter().map(Into::into));
        self
    }

    /// More flags of `docker run`.
    #[must_use]
    pub fn docker<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.docker.extend(words.into_iter().map(Into::into));
        self
    }

    /// A variable of mirrord's own environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Without `--rm`.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    /// In that working folder.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// The command that would run `image` as the container called `name`.
    ///
    /// # Panics
    /// If another user than this one is to run it, and can't.
    #[must_use]
    pub fn command(&self, name: &str, image: &str, words: &[&str]) -> Command {
        let docker = &self.lab.docker;
        let mut command = Command::new(docker.executable(binary()).expect("a copy of mirrord"));
        docker.aim(&mut command);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .args(&self.options)
            .args([docker.program, "run", "--name", name])
            .args((!self.kept).then_some("--rm"))
            .args(&self.docker)
            .arg(image)
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// A `probe shell` as the app; waits until it runs.
    ///
    /// # Errors
    /// If the session does not come up; its standard error is in the message.
    pub fn probe(self, name: &str) -> Result<Session<'lab>> {
        self.probe_of(name, PROBE, &["shell"])
    }

    /// The same, linked in a way that lets a library be loaded into it.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub fn loaded_probe(self, name: &str) -> Result<Session<'lab>> {
        let mount = format!("{}:/probe:ro", toolbox::path("probe"));
        self.docker(["-v", &mount]).probe_of(name, DEBIAN, &["/probe", "shell"])
    }

    fn probe_of(self, name: &str, image: &str, words: &[&str]) -> Result<Session<'lab>> {
        let name = self.lab.name(name);
        let this = self.docker(["-i"]);
        let mut command = this.command(&name, image, words);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", binary().display()))?;
        let probe = take_probe(&mut child)?;
        let session = Session::new(this.lab, name, child, Some(probe));
        session.app().ready().with_context(|| session.last_words())?;
        Ok(session)
    }

    /// Any app, in the background.
    ///
    /// # Errors
    /// If mirrord can't be started.
    pub fn start(self, name: &str, image: &str, words: &[&str]) -> Result<Session<'lab>> {
        let name = self.lab.name(name);
        let child = self
            .command(&name, image, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", binary().display()))?;
        Ok(Session::new(self.lab, name, child, None))
    }

    /// An app that ends by itself.
    ///
    /// # Errors
    /// If it does not end.
    pub fn finish(self, image: &str, words: &[&str]) -> Result<Finished> {
        let mut session = self.start("app", image, words)?;
        drop(session.child.stdin.take());
        session.finish()
    }
}

/// A run that is over.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, as a shell would say it.
    pub code: i32,
    /// The app's.
    pub stdout: String,
    /// The app's and mirrord's own.
    pub stderr: String,
}

/// A running `mirrord`.
pub struct Session<'lab> {
    lab: &'lab Lab,
    /// The app's container, or what a test calls the app that has none.
    pub name: String,
    /// The command itself.
    pub child: Child,
    contained: bool,
    probe: Option<Probe>,
    stdout: Captured,
    stderr: Captured,
}

impl<'lab> Session<'lab> {
    fn new(lab: &'lab Lab, name: String, child: Child, probe: Option<Probe>) -> Self {
        lab.adopt(&name);
        let mut session = Self::of_process(lab, name, child, probe);
        session.contained = true;
        session
    }

    /// One whose app is a process of this machine.
    pub(crate) fn of_process(
        lab: &'lab Lab,
        name: String,
        mut child: Child,
        probe: Option<Probe>,
    ) -> Self {
        let stdout = Captured::of(child.stdout.take());
        let stderr = Captured::of(child.stderr.take());
        Self { lab, name, child, contained: false, probe, stdout, stderr }
    }

    /// The probe that runs as the app.
    ///
    /// # Panics
    /// If another app runs.
    #[must_use]
    pub fn app(&self) -> &Probe {
        self.probe.as_ref().expect("a session whose app is the probe")
    }

    /// The app's standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far, mirrord's and the app's.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// What it has said to its end, if that has come; else so far.
    pub(crate) fn last_words(&self) -> String {
        self.stderr.whole().unwrap_or_else(|_| self.stderr.text())
    }

    /// The session's id, from the app container's label.
    ///
    /// # Errors
    /// If there is no app container yet.
    pub fn id(&self) -> Result<String> {
        let template = "{{index .Config.Labels \"mirrord.session\"}}";
        wait::until("the app's container", || {
            Ok(Some(self.lab.docker.inspect(&self.name, template)?).filter(|id| !id.is_empty()))
        })
    }

    /// The full container id of the session's `proxy` or `agent`.
    ///
    /// # Errors
    /// If there is none.
    pub fn part(&self, role: &str) -> Result<String> {
        let id = self.id()?;
        self.lab.docker.inspect(&format!("mirrord-{role}-{id}"), "{{.Id}}")
    }

    /// The process of the session's `proxy` or `agent`.
    ///
    /// # Errors
    /// If it does not run.
    pub fn process(&self, role: &str) -> Result<Process> {
        processes::worker(&self.part(role)?, role)
    }

    /// Sends the command itself a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).context("signal mirrord")
    }

    /// Waits until its standard error has `text` in it, behind what was said `before`.
    ///
    /// # Errors
    /// If it never has; what was said is in the message.
    pub fn until_said(&self, before: &str, text: &str) -> Result<()> {
        wait::until_true(&format!("a word of {text:?}"), || {
            Ok(self.stderr().get(before.len()..).is_some_and(|since| since.contains(text)))
        })
        .with_context(|| self.stderr())
    }

    /// Waits for the end; the exit code.
    ///
    /// # Errors
    /// If it does not end.
    pub fn wait(&mut self) -> Result<i32> {
        let ended = wait::within(END, "the end of mirrord", || Ok(self.child.try_wait()?));
        Ok(code_of(ended.with_context(|| self.stderr.text())?))
    }

    /// Ends the app's input, which ends the probe, and waits; the exit code.
    ///
    /// # Errors
    /// If it does not end.
    pub fn end(&mut self) -> Result<i32> {
        if let Some(probe) = &self.probe {
            probe.close();
        }
        drop(self.child.stdin.take());
        self.wait()
    }

    /// Waits for the end and takes everything.
    ///
    /// # Errors
    /// If it does not end.
    pub fn finish(&mut self) -> Result<Finished> {
        let code = self.wait()?;
        Ok(Finished { code, stdout: self.stdout.whole()?, stderr: self.stderr.whole()? })
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        match &self.probe {
            Some(probe) => probe.close(),
            // A server as process 1 need not heed SIGTERM.
            None if self.contained => drop(self.lab.docker.run(&["kill", &self.name])),
            None => drop(self.signal(Signal::SIGTERM)),
        }
        drop(self.child.stdin.take());
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let patience = Duration::from_secs(8);
            if wait::within(patience, "the end", || Ok(self.child.try_wait()?)).is_ok() {
                return;
            }
            let _ = self.signal(signal);
        }
        let _ = self.child.wait();
    }
}

/// What a pipe has said.
#[derive(Default, Clone)]
struct Captured(Arc<Mutex<(Vec<u8>, bool)>>);

impl Captured {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let captured = Self::default();
        let Some(mut pipe) = pipe else {
            captured.lock().1 = true;
            return captured;
        };
        let sink = captured.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                sink.lock().0.extend(&buffer[..count]);
            }
            sink.lock().1 = true;
        });
        captured
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<u8>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().0).into_owned()
    }

    /// After the pipe's end. A descendant that keeps it open is an error.
    fn whole(&self) -> Result<String> {
        let ended = wait::within(Duration::from_secs(5), "the end of its output", || {
            Ok(self.lock().1.then_some(()))
        });
        if ended.is_err() {
            bail!("something that mirrord started still holds its output: {}", self.text());
        }
        Ok(self.text())
    }
}
