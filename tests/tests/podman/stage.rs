//! Podman, made ready by `tests/podman`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::docker::Docker;
use mirrord_tests::lab::{Lab, MUSL};
use mirrord_tests::scene::Scene;
use mirrord_tests::{skip, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long podman may take to forget what a session removed.
const SOON: Duration = Duration::from_secs(15);

/// A lab in root's podman.
pub fn rootful(test: &str) -> Result<Option<Lab>> {
    match ready(test)? {
        true => Lab::open_at(test, Docker::podman()),
        false => Ok(None),
    }
}

/// A lab in the podman of a user without rights.
pub fn rootless(test: &str) -> Result<Option<Lab>> {
    match ready(test)? {
        true => Lab::open_at(test, Docker::rootless_podman().context("no user without rights")?),
        false => Ok(None),
    }
}

/// Makes it ready, once; what is ready already takes a moment.
fn ready(test: &str) -> Result<bool> {
    static READY: Mutex<Option<bool>> = Mutex::new(None);
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    let is_ready = match *ready {
        Some(is_ready) => is_ready,
        None => *ready.insert(make_ready()?),
    };
    if !is_ready {
        skip::missing(test, "podman, and root to set it up (make setup)")?;
    }
    Ok(is_ready)
}

fn make_ready() -> Result<bool> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = folder.join("../../shared/engine/up").exists() || Docker::podman().answers();
    if !here || !nix::unistd::geteuid().is_root() {
        return Ok(false);
    }
    let output = Command::new(folder.join("podman")).output().context("run tests/podman")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(true)
}

/// What one podman holds: its containers and volumes.
pub struct Held {
    docker: Docker,
    there: BTreeSet<String>,
}

impl Held {
    /// As it is now.
    pub fn now(docker: &Docker) -> Result<Self> {
        Ok(Self { docker: docker.clone(), there: held(docker)? })
    }

    /// Waits until nothing is there that was not there before.
    pub fn as_before(&self) -> Result<()> {
        let mut new = Vec::new();
        wait::within(SOON, "nothing to be left", || {
            new = held(&self.docker)?.difference(&self.there).cloned().collect();
            Ok(new.is_empty().then_some(()))
        })
        .with_context(|| format!("left behind: {new:?}"))
    }
}

/// Whether `name` answers on a port of this machine.
pub fn answers_here(port: u16, name: &str) -> Result<()> {
    let url = format!("http://127.0.0.1:{port}/");
    let asked = Command::new("curl").args(["-sS", "-m", "5", &url]).output()?;
    let text = String::from_utf8_lossy(&[asked.stdout, asked.stderr].concat()).into_owned();
    ensure!(text.contains(name), "{text}");
    Ok(())
}

/// A container in the background: restarted by the user and by its policy it keeps its session,
/// stopped it has none, and cannot be started without it.
pub fn outlives_its_command(lab: &Lab) -> Result<()> {
    let scene = Scene::open(lab)?;
    let before = Held::now(&lab.docker)?;
    let name = lab.name("app");
    lab.adopt(&name);
    let run = |flags: &[&str]| {
        let mirrord =
            scene.mirrord().with(["--steal"]).kept().docker(["-d"]).docker(flags.to_vec());
        let mut command = mirrord.command(&name, MUSL, &["serve", "80", "local"]);
        let done = command.stdin(Stdio::null()).output()?;
        ensure!(done.status.success(), "{done:?}");
        let id = lab.docker.inspect(&name, "{{.Id}}")?;
        assert_eq!(String::from_utf8_lossy(&done.stdout), format!("{id}\n"));
        scene.until_answered_by("local", 80).map(drop)
    };
    let started = || lab.docker.inspect(&name, "{{.State.StartedAt}}");

    run(&["--restart", "always"])?;
    let first = started()?;
    lab.docker.run(&["restart", "-t", "1", &name])?;
    let second = started()?;
    assert_ne!(first, second);
    scene.until_answered_by("local", 80)?;
    let app: i32 = lab.docker.inspect(&name, "{{.State.Pid}}")?.parse()?;
    kill(Pid::from_raw(app), Signal::SIGKILL)?;
    wait::until_true("podman to start it again", || Ok(started()? != second))?;
    scene.until_answered_by("local", 80)?;
    lab.docker.run(&["rm", "-f", "-t", "1", &name])?;
    before.as_before()?;
    assert_eq!(scene.answers(80)?["name"], "original");

    run(&[])?;
    lab.docker.run(&["stop", "-t", "1", &name])?;
    scene.until_answered_by("original", 80)?;
    let session = lab.docker.inspect(&name, "{{index .Config.Labels \"mirrord.session\"}}")?;
    let filter = format!("name=-{session}$");
    let words = ["ps", "-a", "--filter", &filter, "--format", "{{.Names}} {{.Status}}"];
    let ours = || lab.docker.run(&words);
    let sidecar = format!("mirrord-proxy-{session}");
    wait::until_true("the session's end", || {
        let ours = ours()?;
        Ok(ours.lines().count() == 1 && ours.starts_with(&format!("{sidecar} Exited")))
    })
    .with_context(|| format!("{:?}", ours()))?;
    let refused = lab.docker.run(&["start", &name]);
    ensure!(refused.is_err(), "{refused:?}");
    lab.docker.run(&["rm", &name])?;
    // The next session would remove what nobody needs any more.
    lab.docker.run(&["rm", "-v", &sidecar])?;
    let _ = lab.docker.run(&["volume", "rm", &format!("mirrord-layer-{session}")]);
    before.as_before()
}

fn held(docker: &Docker) -> Result<BTreeSet<String>> {
    let containers = docker.run(&["ps", "-a", "--format", "container {{.Names}}"])?;
    let volumes = docker.run(&["volume", "ls", "--format", "volume {{.Name}}"])?;
    Ok(containers.lines().chain(volumes.lines()).map(str::to_owned).collect())
}
