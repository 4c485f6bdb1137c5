//! One target's tunnel on its way over one pipe.

use std::rc::Rc;

use mirrord_protocol::control::TargetIndex;
use mirrord_protocol::frame::Description;
use mirrord_tunnel::{Pipe, Socket, Tunnel, TunnelError};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::door;
use crate::peer::Peer;

/// Tells a target's pipes apart.
pub(crate) type Generation = u64;

/// What a target has.
pub(crate) struct Current {
    pub(crate) generation: Generation,
    pub(crate) driver: AbortHandle,
    pub(crate) tunnel: Tunnel,
    pub(crate) peer: Rc<Peer>,
    /// Since when the tunnel has no pipe.
    pub(crate) cut: Option<Instant>,
}

/// A pipe that leads to an agent that let us in, and who brought it.
pub(crate) struct Arrived {
    pub(crate) socket: Socket<Pipe>,
    pub(crate) bringer: Option<UnixStream>,
}

/// What is heard over a pipe.
pub(crate) struct News {
    pub(crate) target: TargetIndex,
    pub(crate) generation: Generation,
    pub(crate) what: What,
}

/// What is heard over a pipe.
pub(crate) enum What {
    /// The tunnel goes on where the last pipe broke.
    Resumed,
    /// A target says who it is.
    Described(Description),
}

/// A pipe has come to its end.
pub(crate) struct Ended {
    pub(crate) target: TargetIndex,
    pub(crate) generation: Generation,
    pub(crate) end: End,
}

/// How a pipe ends.
pub(crate) enum End {
    /// The tunnel waits for another one.
    Cut(String),
    /// The tunnel as well.
    Over(anyhow::Error),
    /// The agent is another one than before: the tunnel is over, and the pipe is not.
    Forgotten(Box<Arrived>),
}

/// One pipe's drive.
pub(crate) struct Drive {
    pub(crate) target: TargetIndex,
    pub(crate) generation: Generation,
    pub(crate) tunnel: Tunnel,
    pub(crate) peer: Rc<Peer>,
    pub(crate) news_tx: mpsc::Sender<News>,
    /// What drove the tunnel until now.
    pub(crate) before: Option<AbortHandle>,
}

impl Drive {
    /// Carries the tunnel to the pipe's end, and passes on what is heard.
    pub(crate) async fn run(self, pipe: Arrived) -> Ended {
        let Arrived { mut socket, mut bringer } = pipe;
        // What it still reads would not be counted.
        while self.before.as_ref().is_some_and(|before| !before.is_finished()) {
            tokio::task::yield_now().await;
        }
        let greeted = tokio::select! {
            greeted = self.tunnel.greet(&mut socket) => greeted,
            () = door::left(&mut bringer) => Err(TunnelError::Cut),
        };
        let end = match greeted {
            Err(TunnelError::Forgotten) => End::Forgotten(Box::new(Arrived { socket, bringer })),
            Err(error) => of(error),
            Ok(()) => tokio::select! {
                end = self.carry(socket) => end,
                () = door::left(&mut bringer) => {
                    End::Cut("who brought the pipe is gone".to_owned())
                }
            },
        };
        Ended { target: self.target, generation: self.generation, end }
    }

    async fn carry(&self, socket: Socket<Pipe>) -> End {
        let passing_on = async {
            if self.before.is_some() {
                self.tell(What::Resumed).await;
            }
            loop {
                self.peer.described().await;
                // A pipe that breaks meanwhile leaves it to the next one.
                let Ok(room) = self.news_tx.reserve().await else { return };
                if let Some(description) = self.peer.take_description() {
                    room.send(self.news(What::Described(description)));
                }
            }
        };
        tokio::select! {
            end = self.tunnel.drive(socket, &*self.peer) => of(end),
            () = passing_on => End::Over(anyhow::anyhow!("the session is over")),
        }
    }

    async fn tell(&self, what: What) {
        // Nobody hears it once the session is over, which ends this as well.
        let _ = self.news_tx.send(self.news(what)).await;
    }

    fn news(&self, what: What) -> News {
        News { target: self.target, generation: self.generation, what }
    }
}

fn of(error: TunnelError) -> End {
    let cut = error.is_cut();
    let error = anyhow::Error::new(error);
    if cut { End::Cut(format!("{error:#}")) } else { End::Over(error) }
}
