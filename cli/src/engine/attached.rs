//! A container or process of ours with its three standard streams in our hands.

use std::collections::VecDeque;
use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::query_parameters::AttachContainerOptionsBuilder;
#[cfg(test)]
use futures_util::Stream;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::connect::{Engine, EngineError};
use super::exec::Output;

/// The longest line that is taken from a container: a target's whole environment fits.
const LONGEST_LINE: usize = 16 << 20;

/// One line that a container wrote.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// On its standard output.
    Out(String),
    /// On its standard error.
    Err(String),
}

/// The streams of one container.
pub struct Attached {
    output: Output,
    input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    lines: Lines,
}

impl Attached {
    /// Attaches to a container that is not started yet, so that nothing it says is lost.
    pub async fn to(engine: &Engine, id: &str) -> Result<Self, EngineError> {
        let options = AttachContainerOptionsBuilder::default()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let attached = engine.api().attach_container(id, Some(options)).await;
        let attached = attached
            .map_err(|error| engine.explain("cannot attach to mirrord's container", error))?;
        let lines = Lines::default();
        Ok(Self { output: attached.output, input: Some(attached.input), lines })
    }

    /// A process of this machine's, by its streams.
    pub fn of(output: Output, input: Pin<Box<dyn AsyncWrite + Send>>) -> Self {
        Self { output, input: Some(input), lines: Lines::default() }
    }

    /// One whose container says what a test has it say.
    #[cfg(test)]
    pub fn to_nothing(
        output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send + 'static,
    ) -> Self {
        Self { output: Box::pin(output), input: None, lines: Lines::default() }
    }

    /// Sends one JSON value as a line.
    pub async fn send(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        if let Some(input) = &mut self.input {
            input.write_all(&line).await?;
            input.flush().await?;
        }
        Ok(())
    }

    /// Ends the container's standard input, which ends what runs in it.
    pub async fn close_input(&mut self) {
        if let Some(mut input) = self.input.take() {
            let _ = input.shutdown().await;
        }
    }

    /// The next line; `None` once the container has ended. Can be cancelled without loss.
    pub async fn next_line(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.lines.take() {
                return Some(line);
            }
            match self.output.next().await {
                Some(Ok(LogOutput::StdErr { message })) => self.lines.err(&message),
                Some(Ok(output)) => self.lines.out(&output.into_bytes()),
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// Bytes on their way to become lines.
#[derive(Default)]
struct Lines {
    whole: VecDeque<Line>,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Lines {
    fn take(&mut self) -> Option<Line> {
        self.whole.pop_front()
    }

    fn out(&mut self, bytes: &[u8]) {
        split(&mut self.out, bytes, &mut self.whole, Line::Out);
    }

    fn err(&mut self, bytes: &[u8]) {
        split(&mut self.err, bytes, &mut self.whole, Line::Err);
    }
}

fn split(rest: &mut Vec<u8>, bytes: &[u8], whole: &mut VecDeque<Line>, line: fn(String) -> Line) {
    for part in bytes.split_inclusive(|byte| *byte == b'\n') {
        if rest.len() + part.len() > LONGEST_LINE {
            rest.clear();
        } else {
            rest.extend_from_slice(part);
        }
        if part.ends_with(b"\n") {
            let text = String::from_utf8_lossy(rest).trim_end().to_owned();
            whole.push_back(line(text));
            rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        lines.out(b"{\"a\":");
        assert_eq!(lines.take(), None);
        lines.err(b"log\n");
        lines.out(b"1}\n{}\n{");
        assert_eq!(lines.take(), Some(Line::Err("log".to_owned())));
        assert_eq!(lines.take(), Some(Line::Out("{\"a\":1}".to_owned())));
        assert_eq!(lines.take(), Some(Line::Out("{}".to_owned())));
        assert_eq!(lines.take(), None);
    }
}
