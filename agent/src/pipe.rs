//! A process that only carries bytes: from its standard input to the agent beside it, and back to
//! its standard output.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;

use mirrord_protocol::control::AGENT_SOCKET;

/// What is read at once, in bytes.
const CHUNK: usize = 128 << 10;

/// Carries bytes both ways until the agent ends the connection.
pub fn run() -> ExitCode {
    match carry() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mirrord agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carry() -> io::Result<()> {
    let agent = UnixStream::connect(AGENT_SOCKET)?;
    let to_agent = agent.try_clone()?;
    thread::spawn(move || {
        let _ = copy(io::stdin().lock(), &to_agent);
        let _ = to_agent.shutdown(Shutdown::Write);
    });
    copy(&agent, io::stdout().lock())
}

/// Copies without waiting for a full buffer.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => {
                to.write_all(&buffer[..read])?;
                to.flush()?;
            }
        }
    }
}
