//! The sidecar's first process: starts the worker, and starts it again when it is killed.
//!
//! It holds the namespace: as long as it lives, the app's listening sockets and connections to
//! peers stay, whatever happens to the worker.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use mirrord_protocol::control::{Agents, ProxyConfig, ProxyEvent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::layer::Heritage;
use crate::report;

/// The hidden argument that makes a proxy the worker.
const WORKER: &str = "--worker";
/// A worker that dies so often within [`BRIEF`] can't be helped.
const ATTEMPTS: u32 = 5;
const BRIEF: Duration = Duration::from_secs(10);
/// How long the worker may take to leave.
const FAREWELL: Duration = Duration::from_millis(1800);

/// Runs the sidecar: its configuration is the first line of standard input, whose end means that
/// the CLI is gone.
pub fn run() -> ExitCode {
    match supervise() {
        Ok(code) => code,
        Err(error) => {
            report::failed(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether this container has had its session. Podman starts it again with an app that has joined it.
fn is_over() -> bool {
    let first = || File::create_new("/run/begun");
    process::id() == 1 && first().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
}

fn supervise() -> anyhow::Result<ExitCode> {
    if is_over() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut config = String::new();
    io::stdin().lock().read_line(&mut config).context("reading the configuration")?;
    let heritage = heritage(&config)?;
    let worker: Arc<Mutex<Option<Worker>>> = Arc::default();
    let leaving = worker.clone();
    std::thread::spawn(move || leave_with_the_cli(&leaving));
    let (mut deaths, mut since) = (0, Instant::now());
    loop {
        let line = match &heritage {
            Some(heritage) => heritage.leave(&config).context("starting the proxy")?,
            None => config.clone(),
        };
        let (mut child, stdin) = start(&line)?;
        let pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
        lock(&worker).replace(Worker { stdin: Some(stdin), pid });
        let status = child.wait().context("waiting for the proxy")?;
        if let Some(code) = status.code() {
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        if since.elapsed() > BRIEF {
            (deaths, since) = (0, Instant::now());
        }
        deaths += 1;
        config = again(config);
        anyhow::ensure!(deaths < ATTEMPTS, "the proxy died {deaths} times ({})", how(status));
        report::say(&ProxyEvent::Restarted);
    }
}

/// The worker as the one sees it that ends it.
struct Worker {
    stdin: Option<ChildStdin>,
    pid: Option<Pid>,
}

/// What one worker leaves to the next; a configuration that can't be read is the worker's to refuse.
fn heritage(config: &str) -> anyhow::Result<Option<Heritage>> {
    match serde_json::from_str::<ProxyConfig>(config) {
        Ok(config) => Heritage::of(&config).context("listening for the app's processes"),
        Err(_) => Ok(None),
    }
}

/// What a worker is told that is not the first: the app runs, so that targets which are not there
/// any more are not waited for.
fn again(config: String) -> String {
    let Ok(mut parsed) = serde_json::from_str::<ProxyConfig>(&config) else { return config };
    if let Agents::Handed(awaited) = &mut parsed.agents {
        *awaited = 0;
    }
    serde_json::to_string(&parsed).map_or(config, |line| line + "\n")
}

/// The worker and its standard input, whose end tells it that the session is over.
fn start(config: &str) -> anyhow::Result<(Child, ChildStdin)> {
    let mut child = Command::new("/proc/self/exe")
        .args(["proxy", WORKER])
        .stdin(Stdio::piped())
        .spawn()
        .context("starting the proxy")?;
    let mut stdin = child.stdin.take().context("starting the proxy")?;
    stdin.write_all(config.as_bytes()).context("telling the proxy its configuration")?;
    Ok((child, stdin))
}

/// Has the worker leave once the CLI is gone, and everything in the sidecar at the latest when
/// it takes too long: this is the namespace's first process.
fn leave_with_the_cli(worker: &Mutex<Option<Worker>>) {
    let mut ignored = [0; 256];
    while matches!(io::stdin().read(&mut ignored), Ok(n) if n > 0) {}
    if let Some(worker) = lock(worker).as_mut() {
        drop(worker.stdin.take());
    }
    std::thread::sleep(FAREWELL);
    // On a machine it is not alone, and nobody else would end what hangs.
    if let Some(pid) = lock(worker).as_ref().and_then(|worker| worker.pid) {
        let _ = kill(pid, Signal::SIGKILL);
    }
    std::process::exit(0);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn how(status: ExitStatus) -> String {
    status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"))
}
