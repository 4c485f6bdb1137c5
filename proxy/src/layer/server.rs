//! Where the processes of the session ask: an abstract unix socket, one question a connection.

use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::rc::Rc;
use std::time::Duration;

use mirrord_protocol::control::{LayerConfig, LayerKey};
use mirrord_protocol::layer::KEY_LEN;
use mirrord_tunnel::or_pause;
use nix::unistd::{Uid, geteuid};
use tokio::net::{UnixListener, UnixStream};
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
    pub(crate) fn new(listener: StdUnixListener, config: &LayerConfig) -> io::Result<Self> {
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
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
                Some(came) = self.silent.join_next() => self.heard(came, &layer),
                Some(came) = self.strangers.join_next() => self.heard(came, &layer),
                Some(done) = self.asked.join_next() => note(done),
                accepted = self.listener.accept(), if room => {
                    let accepted = or_pause(accepted, "accepting a process of the app").await;
                    if let Some((socket, _)) = accepted {
                        self.take(socket);
                    }
                }
            }
        }
    }

    fn take(&mut self, socket: UnixStream) {
        let stranger = self.key.is_some() && !self.is_of_us(&socket);
        let key = self.key.unwrap_or(LayerKey([0; KEY_LEN]));
        let asks = async move {
            let received = tokio::time::timeout(PATIENCE, Call::receive(socket, &key.0)).await;
            received.unwrap_or(Err(CallError::Silent))
        };
        match stranger {
            true if self.strangers.len() >= MOST_STRANGERS => {}
            true => drop(self.strangers.spawn_local(asks)),
            false => drop(self.silent.spawn_local(asks)),
        }
    }

    /// Whether a process is of our user, or may do anything; another may be the session's as well,
    /// if it knows the key.
    fn is_of_us(&self, socket: &UnixStream) -> bool {
        let process = socket.peer_cred().map(|process| Uid::from_raw(process.uid()));
        process.is_ok_and(|user| user == self.user || user.is_root())
    }

    fn heard(
        &mut self,
        came: Result<Result<Call, CallError>, JoinError>,
        layer: &Rc<impl Answers>,
    ) {
        match came {
            Ok(Ok(call)) => {
                let layer = layer.clone();
                self.asked.spawn_local(async move { layer.answer(call).await });
            }
            Ok(Err(error)) => note(Ok(Err(error))),
            Err(error) => debug!(%error, "a question came to nothing"),
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
