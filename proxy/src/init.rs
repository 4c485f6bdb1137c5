//! The sidecar's first process: starts the worker, and starts it again when it is killed.
//!
//! It holds the namespace: as long as it lives, the app's listening sockets and connections to
//! peers stay, whatever happens to the worker.

use std::io::{self, BufRead, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use mirrord_protocol::control::ProxyEvent;

use crate::report;

/// The hidden argument that makes a proxy the worker.
const WORKER: &str = "--worker";
/// A worker that dies so often within [`BRIEF`] can't be helped.
const ATTEMPTS: u32 = 5;
const BRIEF: Duration = Duration::from_secs(10);

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

fn supervise() -> anyhow::Result<ExitCode> {
    let mut config = String::new();
    io::stdin().lock().read_line(&mut config).context("reading the configuration")?;
    std::thread::spawn(leave_with_the_cli);
    let (mut deaths, mut since) = (0, Instant::now());
    loop {
        let (mut worker, _stdin) = start(&config)?;
        let status = worker.wait().context("waiting for the proxy")?;
        if let Some(code) = status.code() {
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        if since.elapsed() > BRIEF {
            (deaths, since) = (0, Instant::now());
        }
        deaths += 1;
        anyhow::ensure!(deaths < ATTEMPTS, "the proxy died {deaths} times ({})", how(status));
        report::say(&ProxyEvent::Restarted);
    }
}

/// The worker and its standard input, whose end tells it that we are gone.
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

/// As the namespace's first process, its end is the end of everything in the sidecar.
fn leave_with_the_cli() {
    let mut ignored = [0; 256];
    while matches!(io::stdin().read(&mut ignored), Ok(n) if n > 0) {}
    std::process::exit(0);
}

fn how(status: ExitStatus) -> String {
    status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"))
}
