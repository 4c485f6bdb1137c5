//! A tunnel over one pipe: what is read, what is written, and how each end knows that the other lives.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use mirrord_protocol::frame::Frame;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use super::{Events, Tunnel, TunnelError};
use crate::descriptors::AT_ONCE;
use crate::handshake::Socket;
use crate::kept::Item;
use crate::outbox::Next;
use crate::pipe::Carrier;

/// How often an end says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A peer that says nothing for so long is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(10);
/// The writer flushes after so many bytes, so that streams get room again.
const BATCH: usize = 256 << 10;

impl Tunnel {
    /// Carries frames until the pipe ends. If that [is a cut](TunnelError::is_cut), the streams wait
    /// for the next pipe, until [`Tunnel::end`]; otherwise they are broken.
    pub async fn drive<P>(&self, socket: Socket<P>, events: &dyn Events) -> TunnelError
    where
        P: Carrier,
    {
        self.0.beside.replace(socket.get_ref().descriptors().cloned());
        let (sink, stream) = socket.split();
        self.0.heard.set(Instant::now());
        let error = tokio::select! {
            error = self.read(stream, events) => error,
            error = self.write(sink) => error,
            error = self.beat() => error,
        };
        // Whether the target is there still is not known: whoever connects waits.
        self.0.spares.pause();
        let over = self.0.outbox.is_finished();
        if over || !error.is_cut() {
            self.end();
        }
        if over { TunnelError::Closed } else { error }
    }

    async fn read<P>(&self, mut stream: SplitStream<Socket<P>>, events: &dyn Events) -> TunnelError
    where
        P: Carrier,
    {
        loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return broken(error),
                None => return TunnelError::Cut,
            };
            self.0.heard.set(Instant::now());
            let result = match message {
                Message::Binary(bytes) => self.accept(bytes, events),
                Message::Close(_) => Err(TunnelError::Closed),
                Message::Ping(_) | Message::Pong(_) => Ok(()),
                Message::Text(_) | Message::Frame(_) => Err(TunnelError::Unexpected),
            };
            if let Err(error) = result {
                return error;
            }
        }
    }

    async fn write<P>(&self, mut sink: SplitSink<Socket<P>, Message>) -> TunnelError
    where
        P: Carrier,
    {
        loop {
            poll_fn(|cx| self.0.outbox.poll_ready(cx)).await;
            match self.write_batch(&mut sink).await {
                Ok(false) => self.0.outbox.flushed(),
                // The other end then closes the pipe.
                Ok(true) => std::future::pending().await,
                Err(error) => return broken(error),
            }
        }
    }

    /// Writes what there is; says whether it was the last.
    async fn write_batch<P>(
        &self,
        sink: &mut SplitSink<Socket<P>, Message>,
    ) -> Result<bool, WebSocketError>
    where
        P: Carrier,
    {
        let (mut batch, mut descriptors, mut last) = (0, 0, false);
        while batch < BATCH && descriptors < AT_ONCE && !last {
            let message = match self.0.outbox.pop() {
                Next::Frame(Item { bytes, descriptor }) => {
                    if let Some(descriptor) = descriptor {
                        descriptors += 1;
                        self.0.beside.borrow().iter().for_each(|beside| {
                            beside.queue(descriptor.clone());
                        });
                    }
                    Message::Binary(bytes)
                }
                Next::Nothing => break,
                Next::Close => Message::Close(None),
            };
            batch += message.len();
            last = message.is_close();
            sink.feed(message).await?;
        }
        sink.flush().await?;
        Ok(last)
    }

    async fn beat(&self) -> TunnelError {
        loop {
            let beat = Instant::now();
            self.send_passing(&Frame::Ping(self.now()));
            self.acknowledge();
            tokio::time::sleep(HEARTBEAT).await;
            // After a pause of this very process, what came meanwhile is still to be read.
            let paused = beat.elapsed() > 2 * HEARTBEAT;
            if !paused && self.0.heard.get().elapsed() > SILENCE {
                return TunnelError::Silent;
            }
        }
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.0.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

pub(crate) fn broken(error: WebSocketError) -> TunnelError {
    match error {
        WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed => TunnelError::Closed,
        WebSocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => TunnelError::Cut,
        error @ WebSocketError::Io(_) => TunnelError::Pipe(Box::new(error)),
        other => TunnelError::Foreign(Box::new(other)),
    }
}
