//! Unix sockets through a stream: bytes as they are, messages of SOCK_SEQPACKET each behind its
//! length.

use std::io;

use mirrord_protocol::unix::UnixKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};

use crate::relay::{Answers, Outcome};
use crate::stream::Stream;

/// No message may be longer: the largest that a socket sends which nobody with rights has enlarged
/// is less than half of it (net.core.wmem_max).
const LONGEST: usize = 1 << 20;

impl Stream {
    /// Relays between a unix socket of this kind and the other end, as [`Stream::relay`].
    pub async fn relay_unix(self, kind: UnixKind, socket: UnixStream) {
        if kind == UnixKind::Stream {
            self.relay(socket, Answers::Sent).await;
            return;
        }
        let Ok((near, bytes)) = UnixStream::pair() else { return };
        let (relaying, converting) = (self.relay(near, Answers::Sent), convert(socket, bytes));
        tokio::pin!(relaying, converting);
        tokio::select! {
            outcome = &mut relaying => if outcome == Outcome::Finished {
                let _ = converting.await;
            },
            converted = &mut converting => if converted.is_ok() {
                relaying.await;
            },
        }
    }
}

async fn convert(mut socket: UnixStream, mut bytes: UnixStream) -> io::Result<()> {
    let (mut messages, mut place) = socket.split();
    let (mut framed, mut frames) = bytes.split();
    tokio::try_join!(pack(&mut messages, &mut frames), unpack(&mut framed, &mut place))?;
    Ok(())
}

/// An empty message ends it, as the end does: read(2) tells them as one.
async fn pack(messages: &mut ReadHalf<'_>, frames: &mut WriteHalf<'_>) -> io::Result<()> {
    let mut message = vec![0; LONGEST];
    loop {
        let len = messages.read(&mut message).await?;
        if len == 0 {
            return frames.shutdown().await;
        }
        // One of this length may have been cut.
        let head = u32::try_from(len).ok().filter(|_| len < LONGEST);
        frames.write_u32(head.ok_or(io::ErrorKind::InvalidData)?).await?;
        frames.write_all(&message[..len]).await?;
    }
}

async fn unpack(framed: &mut ReadHalf<'_>, place: &mut WriteHalf<'_>) -> io::Result<()> {
    let mut message = Vec::new();
    loop {
        let len = match framed.read_u32().await {
            Ok(len) => len as usize,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return place.shutdown().await;
            }
            Err(error) => return Err(error),
        };
        if len >= LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        message.resize(len, 0);
        framed.read_exact(&mut message).await?;
        place.write_all(&message).await?;
    }
}
