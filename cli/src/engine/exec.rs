//! A second process in the sidecar, whose standard streams are a pipe to the proxy.

use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::Stream;
use mirrord_protocol::control::TargetIndex;
use tokio::io::AsyncWrite;

use super::connect::{Engine, EngineError};
use super::image::PATH_INSIDE;

/// What is read from the engine at once.
const CAPACITY: usize = 128 << 10;

/// Both directions of the pipe, seen from outside.
pub struct ProxyPipe {
    /// What the proxy sends, as the engine frames it; standard error is the process's own words.
    pub output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    /// To the proxy.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// Starts the process that hands its standard streams to the sidecar's proxy.
pub async fn proxy_pipe(
    engine: &Engine,
    sidecar: &str,
    index: TargetIndex,
    container: Option<&str>,
) -> Result<ProxyPipe, EngineError> {
    let explain = |error| engine.explain("cannot start a process in the sidecar", error);
    let mut command = vec![format!("/{PATH_INSIDE}"), "proxy".into(), "--pipe".into()];
    command.push(index.to_string());
    if let Some(container) = container {
        command.extend(["--container".to_owned(), container.to_owned()]);
    }
    let config = ExecConfig {
        cmd: Some(command),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let made = engine.api().create_exec(sidecar, config).await.map_err(explain)?;
    let options = StartExecOptions { output_capacity: Some(CAPACITY), ..Default::default() };
    match engine.api().start_exec(&made.id, Some(options)).await.map_err(explain)? {
        StartExecResults::Attached { output, input } => Ok(ProxyPipe { output, input }),
        StartExecResults::Detached => Err(EngineError::Other {
            doing: "cannot start a process in the sidecar".to_owned(),
            cause: "the engine did not attach to it".to_owned(),
        }),
    }
}
