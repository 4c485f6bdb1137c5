//! Second processes in our containers, whose standard streams are pipes.

use std::io;
use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use mirrord_protocol::control::TargetIndex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::StreamReader;

use super::connect::{Engine, EngineError};
use super::image::PATH_INSIDE;

/// What is read from the engine at once.
const CAPACITY: usize = 128 << 10;

/// What a process of ours writes, as the engine frames it; standard error is its own words.
pub type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;

/// Both directions of a pipe that ends in a process of ours, seen from outside.
pub struct Pipe {
    /// What comes out of it.
    pub output: Output,
    /// What goes into it.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Pipe {
    /// As one thing to read from and to write to; the process's own words are an error.
    pub fn joined(self) -> impl AsyncRead + AsyncWrite + Unpin + Send {
        tokio::io::join(StreamReader::new(self.output.map(bytes_of)), self.input)
    }
}

/// What is data of the pipe; the process's own words are an error.
pub fn bytes_of(chunk: Result<LogOutput, bollard::errors::Error>) -> io::Result<Bytes> {
    match chunk.map_err(io::Error::other)? {
        LogOutput::StdErr { message } => {
            let words = String::from_utf8_lossy(&message).trim().to_owned();
            Err(io::Error::other(words))
        }
        chunk => Ok(chunk.into_bytes()),
    }
}

/// The words that have the proxy take a process's standard streams over.
pub fn proxy_words(index: TargetIndex, container: Option<&str>) -> Vec<String> {
    let mut words = vec!["proxy".to_owned(), "--pipe".to_owned(), index.to_string()];
    if let Some(container) = container {
        words.extend(["--container".to_owned(), container.to_owned()]);
    }
    words
}

/// Starts the process that hands its standard streams to the sidecar's proxy.
pub async fn proxy_pipe(
    engine: &Engine,
    sidecar: &str,
    index: TargetIndex,
    container: Option<&str>,
) -> Result<Pipe, EngineError> {
    let doing = "cannot start a process in the sidecar";
    start(engine, sidecar, proxy_words(index, container), doing).await
}

/// Starts the process that hands its standard streams to the agent.
pub async fn agent_pipe(engine: &Engine, agent: &str) -> Result<Pipe, EngineError> {
    let words = ["agent", "--pipe"].map(str::to_owned).to_vec();
    start(engine, agent, words, "cannot start a process beside the agent").await
}

async fn start(
    engine: &Engine,
    container: &str,
    words: Vec<String>,
    doing: &str,
) -> Result<Pipe, EngineError> {
    let explain = |error| engine.explain(doing, error);
    let config = ExecConfig {
        cmd: Some([format!("/{PATH_INSIDE}")].into_iter().chain(words).collect()),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let made = engine.api().create_exec(container, config).await.map_err(explain)?;
    let options = StartExecOptions { output_capacity: Some(CAPACITY), ..Default::default() };
    match engine.api().start_exec(&made.id, Some(options)).await.map_err(explain)? {
        StartExecResults::Attached { output, input } => Ok(Pipe { output, input }),
        StartExecResults::Detached => Err(EngineError::Other {
            doing: doing.to_owned(),
            cause: "the engine did not attach to it".to_owned(),
        }),
    }
}
