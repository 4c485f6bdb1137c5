//! The target-side process: in the target's namespaces it does what the proxy asks. It was born
//! in them, or a thread of it for each target enters them.
//!
//! ```text
//!          main thread                    a thread for each target, in its namespaces
//!   ┌─────────────────────────┐     ┌───────────────────────────────────────────────────────────┐
//!   │ door ► serve ► targets ─┼────►│ beside ► session ─┬─ describe   who it is: names, variables │
//!   │        token? which?    │     │                   ├─ outgoing   the app's calls leave here  │
//!   └─────────────────────────┘     │                   ├─ unix       … to its unix sockets       │
//!                                   │                   ├─ echo       … its pings                 │
//!                                   │                   ├─ steal      a port's clients go to us   │
//!                                   │                   └─ mirror     a copy of them does         │
//!                                   └───────────────────────────────────────────────────────────┘
//! ```
//!
//! It changes nothing that outlives it, and it ends by itself when its session is gone.

#![forbid(unsafe_code)]

mod beside;
mod clients;
mod crowd;
mod describe;
mod door;
mod echo;
mod mirror;
mod outgoing;
mod pipe;
mod serve;
mod session;
mod steal;
mod target;
mod targets;
mod unix;

pub use pipe::run as run_pipe;

use std::io::{BufRead, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use mirrord_protocol::control::{AgentConfig, AgentEvent};
use tracing_subscriber::EnvFilter;

/// The longest configuration, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// Runs the agent: its configuration is the first line of standard input, its events are the
/// lines of standard output, its log is standard error.
pub fn run() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = error.chain().map(ToString::to_string).collect();
            say(&AgentEvent::Failed { causes });
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .take(LONGEST_LINE)
        .read_line(&mut line)
        .context("reading the configuration")?;
    let config: AgentConfig = serde_json::from_str(&line).context("reading the configuration")?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    mirrord_tunnel::on_one_thread(serve::serve(config))
}

/// Says one event to the CLI. Once the CLI is gone nobody listens, and that is no failure.
fn say(event: &AgentEvent) {
    if let Ok(mut line) = serde_json::to_string(event) {
        line.push('\n');
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
    }
}
