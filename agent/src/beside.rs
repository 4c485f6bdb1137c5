//! One target's thread: one tunnel at a time.

use std::rc::Rc;
use std::time::Duration;

use mirrord_tunnel::{TunnelError, adopt};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::door::Caller;
use crate::session::Session;
use crate::target::Target;

/// What serves a target's tunnels, on the thread that is in the target's namespaces.
pub(crate) struct Beside {
    target: Rc<Target>,
    tunnel: JoinSet<TunnelError>,
    idle_since: Instant,
}

impl Beside {
    pub(crate) fn new(target: Target) -> Self {
        Self { target: Rc::new(target), tunnel: JoinSet::new(), idle_since: Instant::now() }
    }

    /// Serves those who were let in until there was no tunnel for as long as `patience_rx` says at
    /// that moment; gives the time since when there was none.
    pub(crate) async fn serve(
        mut self,
        mut callers_rx: mpsc::Receiver<Caller>,
        mut patience_rx: watch::Receiver<Duration>,
    ) -> Instant {
        loop {
            let deadline = self.idle_since + *patience_rx.borrow_and_update();
            tokio::select! {
                Some(caller) = callers_rx.recv() => self.replace(&caller).await,
                Some(ended) = self.tunnel.join_next() => self.end(ended),
                Ok(()) = patience_rx.changed() => {}
                () = tokio::time::sleep_until(deadline), if self.tunnel.is_empty() => {
                    return self.idle_since;
                }
            }
        }
    }

    /// A target has one proxy: a new tunnel means that the old one is dead.
    async fn replace(&mut self, caller: &Caller) {
        if !self.tunnel.is_empty() {
            self.tunnel.shutdown().await;
            self.idle_since = Instant::now();
        }
        match caller.pipe() {
            Ok(pipe) => {
                let session = Session::new(self.target.clone());
                self.tunnel.spawn_local(async move { session.serve(adopt(pipe).await).await });
                info!("tunnel up");
            }
            Err(error) => warn!(%error, "a tunnel was lost at its beginning"),
        }
    }

    fn end(&mut self, ended: Result<TunnelError, JoinError>) {
        let reason = match ended {
            Ok(error) => format!("{:#}", anyhow::Error::new(error)),
            Err(error) => error.to_string(),
        };
        info!(reason, "tunnel down");
        self.idle_since = Instant::now();
    }
}
