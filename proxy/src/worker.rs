//! The proxy proper: its start, and its end once the CLI is gone.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use mirrord_protocol::control::{ProxyConfig, ProxyEvent};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tracing_subscriber::EnvFilter;

use crate::layer::{Heritage, Provision, StaticLayer};
use crate::link::Link;
use crate::{report, session};

/// How often the end of a delivery is looked for.
const RETRY: Duration = Duration::from_millis(5);
/// How long the last bytes of the app may take to arrive.
const DELIVERY: Duration = Duration::from_millis(1500);
/// How long the agents may take to hear that it was all.
const GOODBYE: Duration = Duration::from_millis(500);

/// Runs the worker; see the crate. Static programs of the app are given `static_layer`, a
/// freestanding build of the preload library.
pub fn run(static_layer: &'static [u8]) -> ExitCode {
    match mirrord_tunnel::on_one_thread(work(StaticLayer(static_layer))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failed(&error);
            ExitCode::FAILURE
        }
    }
}

async fn work(static_layer: StaticLayer) -> anyhow::Result<()> {
    let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
    let mut stdin = BufReader::new(pipe::Receiver::from_owned_fd(stdin)?);
    let mut line = String::new();
    stdin.read_line(&mut line).await.context("reading the configuration")?;
    let config: ProxyConfig = serde_json::from_str(&line).context("reading the configuration")?;
    let heritage = Heritage::take(&line).context("taking over what another worker has left")?;
    let provision = Provision { static_layer, heritage };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let link = Link::new(config);
    tokio::select! {
        result = session::serve(link.clone(), provision) => result,
        () = farewell(stdin, &link) => {
            report::say(&ProxyEvent::Left);
            Ok(())
        }
    }
}

/// Waits until the session is over, and what the app has sent up to its end has arrived: an app
/// may write, close and exit at once.
async fn farewell(mut stdin: BufReader<pipe::Receiver>, link: &Link) {
    let mut ignored = [0; 256];
    while matches!(stdin.read(&mut ignored).await, Ok(n) if n > 0) {}
    let delivered = async {
        // A connection that the app has only just made may still have to be accepted.
        loop {
            tokio::time::sleep(RETRY).await;
            if link.is_delivered() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DELIVERY, delivered).await;
    let _ = tokio::time::timeout(GOODBYE, link.leave()).await;
}
