//! One target's thread: one tunnel at a time, over one pipe after another.

use std::rc::Rc;
use std::time::Duration;

use mirrord_tunnel::{Greeting, Pipe, Socket, TunnelError, adopt};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::door::Caller;
use crate::session::Session;
use crate::target::Target;

/// So many pipes may not have said yet which tunnel they are of; the proxy has one at a time.
const GREETINGS: usize = 4;

/// How long an agent waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Without a tunnel.
    pub(crate) idle: Duration,
    /// With a tunnel that has no pipe.
    pub(crate) cut: Duration,
}

/// What serves a target's tunnels, on the thread that is in the target's namespaces.
pub(crate) struct Beside {
    target: Rc<Target>,
    standing: Option<Standing>,
    driver: JoinSet<TunnelError>,
    greetings: JoinSet<Result<Greeted, TunnelError>>,
    idle_since: Instant,
}

/// The tunnel that there is.
struct Standing {
    session: Rc<Session>,
    /// Since when it has no pipe.
    cut: Option<Instant>,
}

/// A pipe that has said which tunnel it is of.
type Greeted = (Socket<Pipe>, Greeting);

impl Beside {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target: Rc::new(target),
            standing: None,
            driver: JoinSet::new(),
            greetings: JoinSet::new(),
            idle_since: Instant::now(),
        }
    }

    /// Serves those who were let in until there was no tunnel for as long as `patience_rx` says at
    /// that moment; gives the time since when there was none.
    pub(crate) async fn serve(
        mut self,
        mut callers_rx: mpsc::Receiver<Caller>,
        mut patience_rx: watch::Receiver<Patience>,
    ) -> Instant {
        loop {
            let patience = *patience_rx.borrow_and_update();
            let deadline = match &self.standing {
                None => Some(self.idle_since + patience.idle),
                Some(standing) => standing.cut.map(|cut| cut + patience.cut),
            };
            tokio::select! {
                Some(caller) = callers_rx.recv() => self.hear(&caller),
                Some(greeted) = self.greetings.join_next() => match greeted {
                    Ok(Ok((socket, greeting))) => self.welcome(socket, greeting).await,
                    Ok(Err(error)) => warn!(%error, "a tunnel was lost at its beginning"),
                    Err(_) => {}
                },
                Some(ended) = self.driver.join_next() => self.end(ended),
                Ok(()) = patience_rx.changed() => {}
                () = sleep_until(deadline) => match self.standing.take() {
                    None => return self.idle_since,
                    Some(standing) => self.idle_since = standing.cut.unwrap_or(self.idle_since),
                },
            }
        }
    }

    fn hear(&mut self, caller: &Caller) {
        match caller.pipe() {
            Ok(pipe) => {
                if self.greetings.len() >= GREETINGS {
                    self.greetings.abort_all();
                }
                self.greetings.spawn_local(async move {
                    let mut socket = adopt(pipe).await;
                    let greeting = Greeting::hear(&mut socket).await?;
                    Ok((socket, greeting))
                });
            }
            Err(error) => warn!(%error, "a tunnel was lost at its beginning"),
        }
    }

    async fn welcome(&mut self, mut socket: Socket<Pipe>, greeting: Greeting) {
        let known = self.standing.as_mut().filter(|now| now.session.tunnel.goes_on(&greeting));
        match (known, greeting.received) {
            (Some(standing), Some(_)) => {
                standing.cut = None;
                // What it still reads would not be counted.
                self.driver.shutdown().await;
                let session = standing.session.clone();
                info!("tunnel resumed");
                self.driver.spawn_local(async move { session.resume(socket, greeting).await });
            }
            (_, Some(_)) => {
                self.greetings.spawn_local(async move {
                    let next = greeting.deny(&mut socket).await?;
                    Ok((socket, next))
                });
            }
            // A target has one proxy: a new tunnel means that the old one is dead.
            (_, None) => {
                self.driver.shutdown().await;
                let session = Rc::new(Session::new(self.target.clone(), &greeting));
                self.standing = Some(Standing { session: session.clone(), cut: None });
                info!("tunnel up");
                self.driver.spawn_local(async move { session.serve(socket).await });
            }
        }
    }

    fn end(&mut self, ended: Result<TunnelError, JoinError>) {
        let cut = ended.as_ref().is_ok_and(TunnelError::is_cut);
        let reason = match ended {
            Ok(error) => format!("{:#}", anyhow::Error::new(error)),
            Err(error) => error.to_string(),
        };
        info!(reason, cut, "tunnel down");
        let now = Instant::now();
        match &mut self.standing {
            Some(standing) if cut => {
                standing.cut = Some(now);
                standing.session.lend();
            }
            _ => {
                self.standing = None;
                self.idle_since = now;
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
