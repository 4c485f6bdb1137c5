//! A process that only brings the worker a pipe: its own standard input and output, behind which
//! the CLI copies bytes to an agent and back.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use mirrord_netns::privileges::keep_only;
use mirrord_protocol::control::HANDOVER_SOCKET;
use mirrord_tunnel::handover::{self, Header};

/// How long the worker may take to be there, at the start and after it was killed.
const GRACE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(5);

/// Hands standard input and output over as the pipe that the header tells of, and stays as long as
/// they are one.
/// The worker's socket is in `folder`.
pub fn run(header: &Header, folder: &Path) -> ExitCode {
    match hand_over(header, &folder.join(HANDOVER_SOCKET)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mirrord proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn hand_over(header: &Header, socket: &Path) -> anyhow::Result<()> {
    keep_only(&[]).context("giving up capabilities")?;
    let worker = connect(socket).context("connecting to the proxy")?;
    handover::send(&worker, header, io::stdin().as_fd(), io::stdout().as_fd())
        .and_then(|()| handover::released(&worker))
        .map_err(anyhow::Error::new)
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + GRACE;
    loop {
        match UnixStream::connect(socket) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY),
            result => return result,
        }
    }
}
