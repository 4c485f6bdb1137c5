//! The first words on a pipe: a new tunnel, or the next pipe of one whose last pipe broke.
//!
//! ```text
//!  proxy ── Hello(tunnel, none) ──────────────► agent      a new tunnel: nothing is waited for
//!
//!  proxy ── Hello(tunnel, frames got) ────────► agent
//!  proxy ◄──────── Hello(tunnel, frames got) ── agent      the same tunnel: each end repeats what
//!                                                          the other has not got
//!  proxy ◄────────────── Hello(tunnel, none) ── agent      another agent: the tunnel is over, and
//!  proxy ── Hello(another tunnel, none) ──────► agent      a new one may begin on the same pipe
//! ```

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use mirrord_protocol::frame::{Frame, TunnelId};
use tokio_tungstenite::tungstenite::Message;

use crate::handshake::Socket;
use crate::pipe::Carrier;
use crate::tunnel::{Tunnel, TunnelError, broken};

/// A peer that does not say which tunnel it means is not ours.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a proxy asks for with its first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// Which tunnel.
    pub tunnel: TunnelId,
    /// How many of that tunnel's frames have come to the proxy; none if it is a new one.
    pub received: Option<u64>,
    /// Whether it takes sockets that come beside frames.
    pub descriptors: bool,
}

impl Greeting {
    /// The agent's side: waits for the proxy's first words.
    ///
    /// # Errors
    /// They do not come within 5 s, or are others.
    pub async fn hear<P>(socket: &mut Socket<P>) -> Result<Self, TunnelError>
    where
        P: Carrier,
    {
        match next(socket).await? {
            Frame::Hello { tunnel, received, descriptors } => {
                Ok(Self { tunnel, received, descriptors })
            }
            _ => Err(TunnelError::Unexpected),
        }
    }

    /// The agent's side: that tunnel is not known here; waits for the proxy to ask for a new one.
    ///
    /// # Errors
    /// As [`Greeting::hear`].
    pub async fn deny<P>(self, socket: &mut Socket<P>) -> Result<Self, TunnelError>
    where
        P: Carrier,
    {
        say(socket, &hello(self.tunnel, None)).await?;
        Self::hear(socket).await
    }
}

impl Tunnel {
    /// The proxy's side: says which tunnel goes over this pipe, before [`Tunnel::drive`]. If it had
    /// a pipe before, nothing of it is lost.
    ///
    /// # Errors
    /// The pipe broke, or [`TunnelError::Forgotten`]: the tunnel is over, and the pipe is good for
    /// a new one.
    pub async fn greet<P>(&self, socket: &mut Socket<P>) -> Result<(), TunnelError>
    where
        P: Carrier,
    {
        let begun = self.begin();
        let descriptors = socket.get_ref().takes_descriptors();
        let (tunnel, received) = (self.id(), begun.then(|| self.received()));
        say(socket, &Frame::Hello { tunnel, received, descriptors }).await?;
        self.0.spares.offer(descriptors);
        if !begun {
            return Ok(());
        }
        match next(socket).await? {
            Frame::Hello { tunnel, received, .. } if tunnel == self.id() => match received {
                Some(received) => Ok(self.rewind(received)?),
                None => {
                    self.end();
                    Err(TunnelError::Forgotten)
                }
            },
            _ => Err(TunnelError::Unexpected),
        }
    }

    /// The agent's side: whether this tunnel can go on over the pipe that the proxy greets by. One
    /// beside whose frames sockets go can't where none is taken.
    pub fn goes_on(&self, greeting: &Greeting) -> bool {
        let known = greeting.tunnel == self.id() && greeting.received.is_some();
        known && (greeting.descriptors || !self.has_descriptors())
    }

    /// The agent's side: goes on with this tunnel, for which the proxy asks.
    ///
    /// # Errors
    /// The pipe broke, or the proxy claims to have what it can't.
    pub async fn answer<P>(
        &self,
        socket: &mut Socket<P>,
        greeting: &Greeting,
    ) -> Result<(), TunnelError>
    where
        P: Carrier,
    {
        self.set_hands(greeting.descriptors);
        self.rewind(greeting.received.unwrap_or_default())?;
        say(socket, &hello(self.id(), Some(self.received()))).await
    }
}

/// An agent's words: it takes no descriptors.
fn hello(tunnel: TunnelId, received: Option<u64>) -> Frame {
    Frame::Hello { tunnel, received, descriptors: false }
}

async fn say<P>(socket: &mut Socket<P>, frame: &Frame) -> Result<(), TunnelError>
where
    P: Carrier,
{
    let sent = socket.send(Message::Binary(frame.encode()));
    let sent = tokio::time::timeout(PATIENCE, sent).await;
    sent.map_err(|_| TunnelError::Silent)?.map_err(broken)
}

async fn next<P>(socket: &mut Socket<P>) -> Result<Frame, TunnelError>
where
    P: Carrier,
{
    let next = tokio::time::timeout(PATIENCE, socket.next()).await;
    match next.map_err(|_| TunnelError::Silent)? {
        Some(Ok(Message::Binary(bytes))) => Ok(Frame::decode(bytes)?),
        Some(Ok(_)) => Err(TunnelError::Unexpected),
        Some(Err(error)) => Err(broken(error)),
        None => Err(TunnelError::Cut),
    }
}
