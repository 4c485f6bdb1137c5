//! Where tunnels come from: the agent's socket, or pipes that other processes bring.

use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use mirrord_protocol::Token;
use mirrord_protocol::control::{
    AGENT_SOCKET, Agents, HANDOVER_SOCKET, ProxyConfig, ProxyEvent, TargetIndex,
};
use mirrord_tunnel::handover::{self, Handover};
use mirrord_tunnel::{HandedPipe, HandshakeError, Pipe, Socket, UnixPipe, listen, or_pause};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::report::say;

/// How long an agent may take to appear, at the start and after it was killed.
const GRACE: Duration = Duration::from_secs(30);
/// How often the agent's socket is tried.
const RETRY: Duration = Duration::from_millis(5);
/// So many pipes may be on their way to become tunnels; for the next one, the oldest has to go.
const WAITING_ROOM: usize = 256;

/// A pipe that has become a tunnel, or has not.
pub(crate) struct Arrival {
    pub(crate) target: TargetIndex,
    pub(crate) result: Result<Socket<Pipe>, HandshakeError>,
    /// Who brought the pipe waits until this is closed.
    pub(crate) bringer: Option<UnixStream>,
}

/// Where tunnels come from.
pub(crate) enum Door {
    /// The socket of the one agent.
    Agent(Token),
    /// Pipes are handed over.
    Handover(Receiver),
}

impl Door {
    pub(crate) fn open(config: &ProxyConfig) -> anyhow::Result<Self> {
        let token = config.token.clone();
        Ok(match config.agents {
            Agents::Socket => Self::Agent(token),
            Agents::Handed(_) => {
                let receiver = Receiver::bind(&config.folder, token)?;
                say(&ProxyEvent::Waiting);
                Self::Handover(receiver)
            }
        })
    }

    /// Waits for the next arrival. The agent's socket is tried only while no tunnel has a pipe.
    pub(crate) async fn next(&mut self, alone: bool) -> anyhow::Result<Arrival> {
        match self {
            Self::Agent(token) if alone => {
                let socket = connect(token).await?;
                Ok(Arrival { target: 0, result: Ok(socket), bringer: None })
            }
            Self::Agent(_) => std::future::pending().await,
            Self::Handover(receiver) => Ok(receiver.next().await),
        }
    }
}

/// Connects to the agent's socket as soon as it is there.
async fn connect(token: &Token) -> anyhow::Result<Socket<Pipe>> {
    let deadline = Instant::now() + GRACE;
    loop {
        let error = match UnixStream::connect(AGENT_SOCKET).await {
            Ok(pipe) => match handshake(pipe, token).await {
                Ok(socket) => return Ok(socket),
                Err(error @ HandshakeError::Refused(_)) => return Err(error.into()),
                Err(error) => anyhow::Error::new(error),
            },
            Err(error) => anyhow::Error::new(error),
        };
        debug!(%error, "no agent yet");
        if Instant::now() >= deadline {
            return Err(error.context(format!("no agent within {} s", GRACE.as_secs())));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn handshake(pipe: UnixStream, token: &Token) -> Result<Socket<Pipe>, HandshakeError> {
    let pipe = UnixPipe::from_tokio(pipe).map_err(HandshakeError::Pipe)?.taking();
    mirrord_tunnel::connect(pipe.into(), token, None).await
}

/// Takes pipes over.
pub(crate) struct Receiver {
    listener: UnixListener,
    token: Token,
    arriving: JoinSet<Option<Arrival>>,
    room: VecDeque<AbortHandle>,
}

impl Receiver {
    /// Listens in a folder, in the place of whoever did before.
    pub(crate) fn bind(folder: &str, token: Token) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
        let path = format!("{folder}/{HANDOVER_SOCKET}");
        let listener = listen(&path).with_context(|| format!("listening on {path}"))?;
        Ok(Self { listener, token, arriving: JoinSet::new(), room: VecDeque::new() })
    }

    /// Waits for the next pipe that has become a tunnel, or has not.
    pub(crate) async fn next(&mut self) -> Arrival {
        loop {
            tokio::select! {
                Some(arrived) = self.arriving.join_next() => {
                    if let Ok(Some(arrival)) = arrived {
                        return arrival;
                    }
                }
                accepted = self.listener.accept() => {
                    let accepted = or_pause(accepted, "taking a pipe over").await;
                    let Some((bringer, _)) = accepted else { continue };
                    self.make_room();
                    let arriving = arrive(bringer, self.token.clone());
                    self.room.push_back(self.arriving.spawn_local(arriving));
                }
            }
        }
    }

    /// Who says nothing keeps nobody out.
    fn make_room(&mut self) {
        self.room.retain(|pipe| !pipe.is_finished());
        if self.room.len() >= WAITING_ROOM
            && let Some(oldest) = self.room.pop_front()
        {
            warn!("too many pipes at once: the oldest is turned away");
            oldest.abort();
        }
    }
}

/// Waits until who brought a pipe is gone; for ever if nobody did.
pub(crate) async fn left(bringer: &mut Option<UnixStream>) {
    let Some(bringer) = bringer else { return std::future::pending().await };
    let mut ignored = [0; 64];
    while matches!(bringer.read(&mut ignored).await, Ok(len) if len > 0) {}
}

async fn arrive(bringer: UnixStream, token: Token) -> Option<Arrival> {
    let Handover { header, reader, writer } = match handover::receive(&bringer).await {
        Ok(handover) => handover,
        Err(error) => {
            warn!(error = format!("{:#}", anyhow::Error::new(error)), "a pipe was not taken over");
            return None;
        }
    };
    let pipe = match header.direct {
        true => UnixPipe::new(reader.into()).map(|pipe| pipe.taking().into()),
        false => HandedPipe::new(reader, writer).map(Pipe::from),
    };
    let result = match pipe {
        Ok(pipe) => mirrord_tunnel::connect(pipe, &token, header.container.as_deref()).await,
        Err(error) => Err(HandshakeError::Pipe(error)),
    };
    Some(Arrival { target: header.target, result, bringer: Some(bringer) })
}
