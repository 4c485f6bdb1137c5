//! Our program on its way into an agent's pod: a small starter is there already, takes the rest
//! over a connection, and becomes `mirrord agent` on that same connection.

use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use miniz_oxide::deflate::compress_to_vec_zlib;
use mirrord_protocol::Token;
use mirrord_starter::wire;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// The starter's executable: static, and in need of nothing that an image has.
pub const STARTER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/starter"));

/// The level that takes least time in all, to compress and to send, between 7 and 70 Mbit/s.
const LEVEL: u8 = 2;

/// A program to deliver.
#[derive(Clone)]
pub struct Program {
    digest: [u8; 32],
    length: u64,
    /// Empty until it is there: a pod can be on its way meanwhile.
    compressed: watch::Receiver<Bytes>,
}

impl Program {
    /// The executable that runs now; it is still being compressed on a thread of its own.
    pub async fn of_ourselves() -> io::Result<Self> {
        let (compressed_tx, compressed) = watch::channel(Bytes::new());
        let read = || {
            let bytes = std::fs::read("/proc/self/exe")?;
            Ok::<_, io::Error>((Sha256::digest(&bytes).into(), bytes))
        };
        let (digest, bytes) =
            tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        let length = bytes.len() as u64;
        // It ends by itself, and nobody waits for it if the session ends before.
        tokio::task::spawn_blocking(move || compressed_tx.send(compress(&bytes)));
        Ok(Self { digest, length, compressed })
    }

    async fn compressed(&self) -> io::Result<Bytes> {
        let mut compressed = self.compressed.clone();
        let there = compressed.wait_for(|bytes| !bytes.is_empty()).await;
        there.map(|bytes| bytes.clone()).map_err(io::Error::other)
    }

    /// The executable's SHA-256, in hexadecimal digits.
    pub fn digest_hex(&self) -> String {
        hex(&self.digest)
    }
}

fn compress(bytes: &[u8]) -> Bytes {
    compress_to_vec_zlib(bytes, LEVEL).into()
}

/// What the starter is started with. None of it is secret; `patience` is in seconds, first until
/// somebody shows the token, then again until the program is there.
pub fn arguments(port: u16, token: &Token, program: &Program, patience: u64) -> Vec<String> {
    let token = hex(&Sha256::digest(token.reveal()));
    vec![port.to_string(), token, program.digest_hex(), patience.to_string()]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Why a program was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The connection broke before the starter knew us.
    #[error("cannot show the session's token to the agent's starter")]
    Introduce(#[source] io::Error),
    /// The connection broke while the program was sent.
    #[error("cannot send the agent's program")]
    Send(#[source] io::Error),
    /// The connection broke, or ended, before the starter had said that it has the program.
    #[error("cannot hear whether the agent's program arrived")]
    Hear(#[source] io::Error),
    /// The starter, or whatever listens there, hung up.
    #[error("the agent's starter does not know the session's token, or is another one's")]
    HungUp,
    /// Something else listens there.
    #[error("what listens there is not the agent's starter, it says {0:?}")]
    Stranger(String),
    /// The starter has a reason.
    #[error("the agent's starter did not take the program: {0}")]
    Refused(String),
}

/// Shows the token and delivers the program. After it the stream is the standard input and output
/// of `mirrord agent`, unless the first line that comes is a [`refusal`].
pub async fn deliver<S>(
    stream: &mut S,
    token: &Token,
    program: &Program,
) -> Result<(), DeliveryError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    introduce(stream, token).await?;
    let sent = send(stream, program).await;
    // What it answered says more than that it hung up.
    let heard = line(stream).await;
    if let Some(reason) = heard.as_ref().ok().and_then(|line| refusal(line)) {
        return Err(DeliveryError::Refused(reason.to_owned()));
    }
    sent.map_err(DeliveryError::Send)?;
    match heard.map_err(DeliveryError::Hear)? {
        line if line.as_bytes() == wire::DONE => Ok(()),
        line if line.is_empty() => Err(DeliveryError::Hear(io::ErrorKind::UnexpectedEof.into())),
        line => Err(DeliveryError::Stranger(line)),
    }
}

/// The reason, if a line is the starter's refusal: also where the agent's first line is expected,
/// when the kernel refused to execute the program at the last moment.
pub fn refusal(line: &str) -> Option<&str> {
    line.strip_prefix(wire::REFUSAL).map(str::trim_end)
}

async fn introduce<S>(stream: &mut S, token: &Token) -> Result<(), DeliveryError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let shown = async {
        stream.write_all(token.reveal().as_bytes()).await?;
        stream.flush().await?;
        line(stream).await
    };
    match shown.await {
        Ok(line) if line.as_bytes() == wire::GREETING => Ok(()),
        Ok(line) if line.is_empty() => Err(DeliveryError::HungUp),
        Ok(line) => Err(DeliveryError::Stranger(line)),
        Err(error) => Err(DeliveryError::Introduce(error)),
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), program: &Program) -> io::Result<()> {
    stream.write_all(&program.length.to_le_bytes()).await?;
    stream.write_all(&program.compressed().await?).await?;
    stream.flush().await
}

/// One line with its end, and not a byte more; less at the stream's end, and never much.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < wire::LONGEST_REFUSAL && stream.read(&mut byte).await? == 1 {
        line.push(byte[0]);
        if byte == *b"\n" {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
