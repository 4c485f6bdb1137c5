//! Accepts tunnels on the shared socket and ends when the session is gone.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::Context;
use mirrord_protocol::control::{AGENT_SOCKET, AgentConfig, AgentEvent};
use mirrord_tunnel::{HandshakeError, Socket, UnixPipe};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::session::Session;

/// So many peers may be without a token yet; the next one is turned away.
const WAITING_ROOM: usize = 16;
/// How long the agent waits for a new tunnel once the CLI is gone as well.
const ALONE: Duration = Duration::from_secs(1);

/// Serves tunnels until there was none for the configured time, or the CLI is gone with them.
pub(crate) async fn serve(config: AgentConfig) -> anyhow::Result<()> {
    let listener = listen(AGENT_SOCKET)?;
    crate::say(&AgentEvent::Listening);
    let mut patience = Duration::from_secs(config.idle_timeout);
    let mut idle_since = Instant::now();
    let mut waiting: JoinSet<Result<Socket<UnixPipe>, HandshakeError>> = JoinSet::new();
    let mut tunnel = JoinSet::new();
    let cli_gone = cli_gone();
    tokio::pin!(cli_gone);
    let mut alone = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let pipe = match accepted.and_then(|(pipe, _)| UnixPipe::from_tokio(pipe)) {
                    Ok(pipe) => pipe,
                    Err(error) => {
                        // Out of file descriptors, most likely: the proxy tries again.
                        warn!(%error, "accepting a tunnel failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                };
                if waiting.len() >= WAITING_ROOM {
                    warn!("too many peers that show no token: one is turned away");
                    continue;
                }
                let token = config.token.clone();
                waiting.spawn_local(async move { mirrord_tunnel::accept(pipe, &token).await });
            }
            Some(judged) = waiting.join_next() => match judged? {
                Err(error) => warn!(%error, "a peer was not let in"),
                Ok(socket) => {
                    // A session has one proxy: a new tunnel means that the old one is dead.
                    tunnel.shutdown().await;
                    let session = Session::new(config.target_pid);
                    tunnel.spawn_local(async move { session.serve(socket).await });
                    info!("tunnel up");
                }
            },
            Some(ended) = tunnel.join_next() => {
                let reason = format!("{:#}", anyhow::Error::new(ended?));
                info!(reason, "tunnel down");
                idle_since = Instant::now();
            }
            () = &mut cli_gone, if !alone => {
                alone = true;
                patience = ALONE;
            }
            () = tokio::time::sleep_until(idle_since + patience), if tunnel.is_empty() => {
                info!("no tunnel any more: leaving");
                return Ok(());
            }
        }
    }
}

fn listen(path: &str) -> anyhow::Result<UnixListener> {
    // Bound under another name first: who finds the socket can connect to it.
    let unready = format!("{path}.new");
    let _ = fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready).with_context(|| format!("listening on {path}"))?;
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o600))?;
    fs::rename(&unready, path).with_context(|| format!("listening on {path}"))?;
    Ok(listener)
}

/// Waits for the end of standard input; for ever if it is no pipe.
async fn cli_gone() {
    let Ok(mut stdin) = stdin() else { return std::future::pending().await };
    let mut ignored = [0; 256];
    while matches!(stdin.read(&mut ignored).await, Ok(n) if n > 0) {}
}

fn stdin() -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)
}
