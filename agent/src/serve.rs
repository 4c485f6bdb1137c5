//! Lets tunnels in, and ends when the session is gone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use mirrord_protocol::Token;
use mirrord_protocol::control::{AgentConfig, AgentEvent};
use mirrord_tunnel::{HandshakeError, accept, or_pause};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::beside::Patience;
use crate::door::{Caller, Door};
use crate::targets::{CallersTx, Targets};

/// So many peers may be without a token yet; for the next one, the oldest has to go.
const WAITING_ROOM: usize = 16;
/// Ends of threads that wait to be noticed.
const ENDS: usize = 16;

/// Somebody with the token, and the way to the target that was asked for.
type Admitted = (Caller, CallersTx);

/// Serves tunnels until there was none for the configured time, or the CLI is gone with them.
pub(crate) async fn serve(config: AgentConfig) -> anyhow::Result<()> {
    let door = Door::open(config.door)?;
    let mut patience = Patience {
        idle: Duration::from_secs(config.idle_timeout),
        cut: Duration::from_secs(config.grace),
    };
    let (patience_tx, patience_rx) = watch::channel(patience);
    let (ended_tx, mut ended_rx) = mpsc::channel(ENDS);
    let targets = Rc::new(RefCell::new(Targets::new(&config, patience_rx, ended_tx)));
    let mut cli_gone = cli_gone().context("watching the CLI")?;
    crate::say(&AgentEvent::Listening);
    let mut idle_since = Instant::now();
    let mut waiting: JoinSet<Result<Admitted, HandshakeError>> = JoinSet::new();
    let mut room: VecDeque<AbortHandle> = VecDeque::new();
    let mut alone = false;
    loop {
        let idle = targets.borrow_mut().is_empty();
        tokio::select! {
            accepted = door.accept() => {
                let Some(caller) = or_pause(accepted, "accepting a tunnel").await else { continue };
                room.retain(|peer| !peer.is_finished());
                if room.len() >= WAITING_ROOM
                    && let Some(oldest) = room.pop_front()
                {
                    warn!("too many peers that show no token: the oldest is turned away");
                    oldest.abort();
                }
                let judged = judge(caller, config.token.clone(), targets.clone());
                room.push_back(waiting.spawn_local(judged));
            }
            Some(judged) = waiting.join_next() => match judged {
                Err(turned_away) if turned_away.is_cancelled() => {}
                Err(failed) => return Err(failed.into()),
                Ok(Err(error)) => warn!(%error, "a peer was not let in"),
                Ok(Ok((caller, callers_tx))) => if let Err(error) = callers_tx.try_send(caller) {
                    warn!(%error, "the target's thread takes no tunnel");
                },
            },
            Some(thread_idle_since) = ended_rx.recv() => {
                idle_since = idle_since.max(thread_idle_since);
            }
            said = &mut cli_gone, if !alone => {
                if said == Ok(Gone::Leave) {
                    return Ok(());
                }
                alone = true;
                let alone = Duration::from_secs(config.alone_timeout);
                patience = Patience { idle: alone, cut: alone.min(patience.cut) };
                patience_tx.send_replace(patience);
            }
            () = tokio::time::sleep_until(idle_since + patience.idle), if idle => {
                info!("no tunnel any more: leaving");
                return Ok(());
            }
        }
    }
}

/// Lets in who has the token and asks for a target that is here.
async fn judge(
    caller: Caller,
    token: Token,
    targets: Rc<RefCell<Targets>>,
) -> Result<Admitted, HandshakeError> {
    let pipe = caller.pipe().map_err(HandshakeError::Pipe)?;
    let admit = |container: Option<&str>| {
        let found = targets.borrow_mut().find(container);
        found.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    };
    let (_, callers_tx) = accept(pipe, &token, admit).await?;
    Ok((caller, callers_tx))
}

/// What became of the CLI.
#[derive(Debug, PartialEq, Eq)]
enum Gone {
    /// Standard input has ended: it may have died, or a connection was cut.
    Silently,
    /// It said that the session is over.
    Leave,
}

/// Tells when standard input ends, be it a pipe or a socket, or says anything after the
/// configuration.
fn cli_gone() -> std::io::Result<oneshot::Receiver<Gone>> {
    let (gone_tx, gone_rx) = oneshot::channel();
    let watch = move || {
        // Another flag on the descriptor would be one on standard output too: a thread may block.
        let gone = match std::io::stdin().lock().read(&mut [0]) {
            Ok(1..) => Gone::Leave,
            Ok(0) | Err(_) => Gone::Silently,
        };
        let _ = gone_tx.send(gone);
    };
    std::thread::Builder::new().name("cli".into()).spawn(watch)?;
    Ok(gone_rx)
}
