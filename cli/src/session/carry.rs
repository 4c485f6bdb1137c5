//! Between the two ends of a tunnel: whoever can reach both copies bytes.

use std::io;

use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::engine::exec::{Pipe, bytes_of};

/// What is read at once from the agent's side.
const CHUNK: usize = 256 << 10;
/// What the proxy's side has ready goes on at once, up to so many of its chunks.
const BATCH: usize = 16;

/// Carries bytes both ways, between an agent and a proxy, until one side ends.
pub async fn carry(agent: impl AsyncRead + AsyncWrite, proxy: Pipe) -> io::Result<()> {
    let (mut from_agent, mut to_agent) = tokio::io::split(agent);
    let Pipe { output, mut input } = proxy;
    let mut output = output.ready_chunks(BATCH);
    let up = async {
        while let Some(chunks) = output.next().await {
            for chunk in chunks {
                to_agent.write_all(&bytes_of(chunk)?).await?;
            }
            to_agent.flush().await?;
        }
        Ok(())
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            match from_agent.read(&mut buffer).await? {
                0 => return Ok(()),
                length => {
                    input.write_all(&buffer[..length]).await?;
                    input.flush().await?;
                }
            }
        }
    };
    tokio::select! {
        end = up => end,
        end = down => end,
    }
}
