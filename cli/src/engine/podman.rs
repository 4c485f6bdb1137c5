//! Podman's API that speaks as Docker's does: where it is, and a service of our own where it is
//! nowhere, since podman itself needs none.

pub mod states;

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, access, geteuid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::elf::EXECUTABLE;
use super::endpoint::{Endpoint, EndpointError, normal};
use crate::docker_run::DockerRun;
use crate::failure::Failure;
use crate::front::trampoline;

const PROGRAM: &str = "podman";

/// Flags that say where else containers are than a service would look.
const PLACES: &[&str] = &[
    "cgroup-manager",
    "conmon",
    "hooks-dir",
    "imagestore",
    "module",
    "namespace",
    "network-cmd-path",
    "network-config-dir",
    "root",
    "runroot",
    "runtime",
    "runtime-flag",
    "storage-driver",
    "storage-opt",
    "tmpdir",
    "transient-store",
    "volumepath",
];

/// How long a service may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to end.
const ENDING: Duration = Duration::from_secs(3);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);

/// What is known of an engine that is podman.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Podman {
    /// The program and flags with which a service is started, if none is there.
    pub service: Vec<String>,
    /// Whether it runs without root, as far as that is known.
    pub rootless: bool,
}

/// Where the API of a `podman run` line is.
pub fn endpoint(run: &DockerRun) -> Result<Endpoint, EndpointError> {
    let given = |flags: &[&str]| {
        flags.iter().find_map(|flag| Some((run.global(flag)?, format!("--{flag}"))))
    };
    if let Some((url, source)) = given(&["url", "host"]) {
        return remote(&url, source);
    }
    if let Some((name, source)) = given(&["connection", "context"]) {
        return connection(Some(&name), source);
    }
    if let Some(endpoint) = of_variables() {
        return endpoint;
    }
    if run.global("remote").is_some_and(|value| value != "false") {
        return connection(None, "--remote".to_owned());
    }
    let elsewhere = run
        .all_globals()
        .filter(|flag| PLACES.contains(&flag.spec.long))
        .map(|flag| flag.word().to_string_lossy().into_owned());
    Ok(local(elsewhere.collect()))
}

/// Where the API of a `podman` without flags is, on a machine that has one.
pub fn of_environment() -> Option<Result<Endpoint, EndpointError>> {
    let folders = env::var_os("PATH")?;
    let is_there = |folder: PathBuf| access(&folder.join(PROGRAM), AccessFlags::X_OK).is_ok();
    env::split_paths(&folders)
        .any(is_there)
        .then(|| of_variables().unwrap_or_else(|| Ok(local(Vec::new()))))
}

/// What podman's own variables say.
fn of_variables() -> Option<Result<Endpoint, EndpointError>> {
    let said = |name: &str| {
        let value = env::var(name).ok().filter(|value| !value.is_empty())?;
        Some((value, name.to_owned()))
    };
    if let Some((url, source)) = said("CONTAINER_HOST") {
        return Some(remote(&url, source));
    }
    let (name, source) = said("CONTAINER_CONNECTION")?;
    Some(connection(Some(&name), source))
}

/// The podman of this machine and user, with flags that say where its containers are.
fn local(elsewhere: Vec<String>) -> Endpoint {
    let socket = default_socket();
    let serves = elsewhere.is_empty() && UnixStream::connect(&socket).is_ok();
    let service = match serves {
        true => Vec::new(),
        false => [vec![PROGRAM.to_owned()], elsewhere].concat(),
    };
    Endpoint {
        host: format!("unix://{}", socket.display()),
        source: "podman's default".to_owned(),
        tls: None,
        podman: Some(Podman { service, rootless: !geteuid().is_root() }),
    }
}

fn remote(url: &str, source: String) -> Result<Endpoint, EndpointError> {
    let host = normal(url);
    // podman writes `unix:/path` as well.
    let host = match host.strip_prefix("tcp://unix:") {
        Some(path) => format!("unix://{path}"),
        None => host,
    };
    match host.split_once("://") {
        Some(("unix" | "tcp", _)) => {
            Ok(Endpoint { host, source, tls: None, podman: Some(Podman::default()) })
        }
        _ => Err(EndpointError::Scheme(host)),
    }
}

/// A connection that podman has a name for, or its default one.
fn connection(name: Option<&str>, source: String) -> Result<Endpoint, EndpointError> {
    let words = ["system", "connection", "list", "--format", "json"];
    let listed = StdCommand::new(PROGRAM).args(words).stderr(Stdio::null()).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    let known: Vec<Value> = serde_json::from_slice(&listed).unwrap_or_default();
    let wanted = |connection: &&Value| match name {
        Some(name) => connection["Name"] == name,
        None => connection["Default"] == true,
    };
    let uri = known.iter().find(wanted).and_then(|connection| connection["URI"].as_str());
    match (uri, name) {
        (Some(uri), _) => remote(uri, source),
        (None, None) => remote(&format!("unix://{}", default_socket().display()), source),
        (None, Some(name)) => Err(EndpointError::UnknownContext {
            name: name.to_owned(),
            known: known.iter().filter_map(|one| Some(one["Name"].as_str()?.to_owned())).collect(),
        }),
    }
}

fn default_socket() -> PathBuf {
    match geteuid().is_root() {
        true => PathBuf::from("/run/podman/podman.sock"),
        false => run_folder().join("podman/podman.sock"),
    }
}

/// A folder of this user's for sockets.
fn run_folder() -> PathBuf {
    let own = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let shared = geteuid().is_root().then(|| PathBuf::from("/run"));
    let fits = |folder: &PathBuf| access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    own.into_iter().chain(shared).find(fits).unwrap_or_else(env::temp_dir)
}

/// A service of ours; it ends with this, and when this process is killed.
pub struct Service {
    child: Child,
    socket: PathBuf,
}

impl Service {
    /// Starts one if the endpoint needs it, which then leads to it.
    pub async fn start_for(endpoint: &mut Option<Endpoint>) -> Result<Option<Self>, Failure> {
        let Some(endpoint) = endpoint else { return Ok(None) };
        let Some(Podman { service: words, .. }) = &endpoint.podman else { return Ok(None) };
        if words.is_empty() {
            return Ok(None);
        }
        let name = format!("mirrord-podman-{}.sock", std::process::id());
        let socket = run_folder().join(name);
        let failed = |error: &io::Error| Failure::caused_by("cannot start podman's service", error);
        let log = memfd_create(c"podman", MFdFlags::MFD_CLOEXEC);
        let mut log = File::from(log.map_err(|error| failed(&error.into()))?);
        let errors = log.try_clone().map_err(|error| failed(&error))?;
        let child =
            command(words, &socket).stderr(errors).spawn().map_err(|error| failed(&error))?;
        let mut service = Self { child, socket };
        let listens = timeout(PATIENCE, service.until_it_listens()).await;
        if !matches!(listens, Ok(true)) {
            let mut text = String::new();
            let _ = log.rewind().and_then(|()| log.read_to_string(&mut text));
            let failure = Failure::new("podman's service did not start");
            return Err(text
                .trim()
                .lines()
                .fold(failure, Failure::because)
                .hint("see whether 'podman system service' works"));
        }
        endpoint.host = format!("unix://{}", service.socket.display());
        endpoint.source = "a service of podman's, started by mirrord".to_owned();
        Ok(Some(service))
    }

    async fn until_it_listens(&mut self) -> bool {
        loop {
            if UnixStream::connect(&self.socket).is_ok() {
                return true;
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            sleep(PAUSE).await;
        }
    }

    /// Ends it.
    pub async fn end(mut self) {
        self.signal(Signal::SIGTERM);
        if timeout(ENDING, self.child.wait()).await.is_err() {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait().await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = fs::remove_file(&self.socket);
    }
}

fn command(words: &[String], socket: &Path) -> Command {
    let mut url = OsString::from("unix://");
    url.push(socket);
    let mut command = Command::new(EXECUTABLE);
    command
        .arg(trampoline::NAME)
        .arg(std::process::id().to_string())
        .args(words)
        .args(["system", "service", "--time=0"])
        .arg(url)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}
