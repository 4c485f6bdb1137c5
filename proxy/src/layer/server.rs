//! Where the processes of the session ask: an abstract unix socket, one question a connection.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mirrord_protocol::control::{LayerConfig, LayerKey};
use mirrord_protocol::layer::KEY_LEN;
use mirrord_tunnel::datagrams::Readiness;
use mirrord_tunnel::or_pause;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{Uid, geteuid};
use tokio::task::{JoinError, JoinSet};
use tracing::debug;

use super::call::{Call, CallError};

/// So many processes may be about to ask; others wait in the socket's queue.
const MOST_SILENT: usize = 1024;
/// So many of them may be of a user who is not the session's: anybody can connect to such a socket.
const MOST_STRANGERS: usize = 64;
/// So many questions are worked on at once.
const MOST_ASKED: usize = 8192;
/// Who connects and then says nothing is turned away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answers the processes of a session.
pub(crate) trait Answers: 'static {
    /// Answers one question.
    async fn answer(&self, call: Call) -> Result<(), CallError>;
}

/// The layer's end of the session.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    readiness: Readiness,
    key: Option<LayerKey>,
    user: Uid,
    /// Those who have connected and not asked yet.
    silent: JoinSet<Result<Call, CallError>>,
    /// The same, who are of another user.
    strangers: JoinSet<Result<Call, CallError>>,
    asked: JoinSet<Result<(), CallError>>,
}

impl Server {
    /// Takes what asks on this socket.
    pub(crate) fn new(listener: UnixListener, config: &LayerConfig) -> io::Result<Self> {
        Ok(Self {
            readiness: Readiness::of(&listener)?,
            listener,
            key: config.key,
            user: geteuid(),
            silent: JoinSet::new(),
            strangers: JoinSet::new(),
            asked: JoinSet::new(),
        })
    }

    /// Answers as long as the process lives.
    pub(crate) async fn run(mut self, layer: Rc<impl Answers>) -> anyhow::Error {
        loop {
            let room = self.silent.len() < MOST_SILENT && self.asked.len() < MOST_ASKED;
            tokio::select! {
                Some(came) = self.silent.join_next() => self.heard(came, &layer).await,
                Some(came) = self.strangers.join_next() => self.heard(came, &layer).await,
                Some(done) = self.asked.join_next() => note(done),
                accepted = self.readiness.take(|| self.listener.accept()), if room => {
                    let accepted = or_pause(accepted, "accepting a process of the app").await;
                    if let Some((socket, _)) = accepted {
                        self.take(socket, &layer).await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, socket: UnixStream, layer: &Rc<impl Answers>) {
        let stranger = self.key.is_some() && !self.is_of_us(&socket);
        if stranger && self.strangers.len() >= MOST_STRANGERS {
            return;
        }
        let key = self.key.unwrap_or(LayerKey([0; KEY_LEN]));
        let asks = async move {
            let received = tokio::time::timeout(PATIENCE, Call::receive(socket, &key.0)).await;
            received.unwrap_or(Err(CallError::Silent))
        };
        let silent = if stranger { &mut self.strangers } else { &mut self.silent };
        if let Some(came) = at_once_or(silent, asks).await {
            self.heard(Ok(came), layer).await;
        }
    }

    /// Whether a process is of our user, or may do anything; another may be the session's as well,
    /// if it knows the key.
    fn is_of_us(&self, socket: &UnixStream) -> bool {
        let process = getsockopt(socket, PeerCredentials).map(|it| Uid::from_raw(it.uid()));
        process.is_ok_and(|user| user == self.user || user.is_root())
    }

    async fn heard(
        &mut self,
        came: Result<Result<Call, CallError>, JoinError>,
        layer: &Rc<impl Answers>,
    ) {
        match came {
            Ok(Ok(call)) => {
                let layer = layer.clone();
                let answers = async move { layer.answer(call).await };
                if let Some(done) = at_once_or(&mut self.asked, answers).await {
                    note(Ok(done));
                }
            }
            Ok(Err(error)) => note(Ok(Err(error))),
            Err(error) => debug!(%error, "a question came to nothing"),
        }
    }
}

/// What comes of it if that is known at once, as it mostly is; otherwise it goes on in `tasks`.
async fn at_once_or<T: 'static>(
    tasks: &mut JoinSet<T>,
    work: impl Future<Output = T> + 'static,
) -> Option<T> {
    let mut work = Box::pin(work);
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(result) => Some(result),
        Poll::Pending => {
            tasks.spawn_local(work);
            None
        }
    }
}

fn note(done: Result<Result<(), CallError>, JoinError>) {
    let error = match done {
        Ok(Ok(())) => return,
        Ok(Err(error)) => anyhow::Error::new(error),
        Err(error) => anyhow::Error::new(error),
    };
    debug!(error = format!("{error:#}"), "a question came to nothing");
}
