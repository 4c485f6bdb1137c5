//! What podman says of containers, in words of Docker's API: it has two states more, in which a
//! container has been told to end, or has ended and is not cleaned up.

use std::io;
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::engine::connect::{Engine, EngineError};

/// The version of the API that is spoken: podman's oldest.
const VERSION: &str = "1.40";
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often a container is looked at: podman's own way to wait looks without a pause, which takes
/// a processor.
const PAUSE: Duration = Duration::from_millis(250);

/// The containers with a label, running or not.
pub async fn labelled(engine: &Engine, label: &str) -> Result<Vec<ContainerSummary>, EngineError> {
    let filters = json!({ "label": [label] }).to_string();
    let path = format!("/containers/json?all=true&filters={}", encoded(&filters));
    ask(engine, &path, "cannot list mirrord's containers").await
}

/// One container.
pub async fn inspect(engine: &Engine, id: &str) -> Result<ContainerInspectResponse, EngineError> {
    ask(engine, &format!("/containers/{id}/json"), "cannot look at a container").await
}

/// Waits until a container does not run, or until it is gone. Whether podman said so.
pub async fn until(engine: &Engine, id: &str, gone: bool) -> bool {
    loop {
        match inspect(engine, id).await {
            Ok(container) if gone || runs(&container) => sleep(PAUSE).await,
            Ok(_) => return true,
            Err(error) => return error.is_not_found(),
        }
    }
}

/// Whether one of the containers that podman's refusal to remove another one names as dependent
/// has ended, and is not about to go.
pub async fn is_kept(engine: &Engine, refusal: &str) -> bool {
    for id in refusal.split(|char: char| !char.is_ascii_hexdigit()).filter(|id| id.len() == 64) {
        let Ok(container) = inspect(engine, id).await else { continue };
        let goes = container.host_config.as_ref().and_then(|host| host.auto_remove);
        if goes != Some(true) && !runs(&container) {
            return true;
        }
    }
    false
}

fn runs(container: &ContainerInspectResponse) -> bool {
    use ContainerStateStatusEnum::{PAUSED, REMOVING, RESTARTING, RUNNING};
    let status = container.state.as_ref().and_then(|state| state.status);
    matches!(status, Some(RUNNING | PAUSED | RESTARTING | REMOVING))
}

async fn ask<T: DeserializeOwned>(
    engine: &Engine,
    path: &str,
    doing: &str,
) -> Result<T, EngineError> {
    let answer = match timeout(TIMEOUT, get(&engine.endpoint().host, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(BollardError::RequestTimeoutError),
    };
    let read = answer.and_then(|answer| Ok(serde_json::from_value(in_docker_words(answer))?));
    read.map_err(|error| engine.explain(doing, error))
}

async fn get(host: &str, path: &str) -> Result<Value, BollardError> {
    let mut stream: Box<dyn Duplex> = match host.split_once("://") {
        Some(("unix", socket)) => Box::new(UnixStream::connect(socket).await?),
        Some((_, address)) => Box::new(TcpStream::connect(address).await?),
        None => return Err(io::Error::from(io::ErrorKind::InvalidInput).into()),
    };
    // An answer of this version ends with the connection.
    let request = format!("GET /v{VERSION}{path} HTTP/1.0\r\nHost: podman\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let (status_code, body) =
        split(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let body: Value = serde_json::from_slice(body)?;
    match status_code {
        200 => Ok(body),
        _ => {
            let message = body["message"].as_str().unwrap_or_default().to_owned();
            Err(BollardError::DockerResponseServerError { status_code, message })
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The status and the body of an answer.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let ends = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..ends]).ok()?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, &answer[ends + 4..]))
}

/// A list of containers, or one of them.
fn in_docker_words(mut answer: Value) -> Value {
    let translate = |state: &mut Value| match state.as_str() {
        Some("stopping") => *state = "running".into(),
        Some("stopped") => *state = "exited".into(),
        _ => {}
    };
    match &mut answer {
        Value::Array(containers) => {
            containers.iter_mut().for_each(|container| translate(&mut container["State"]));
        }
        container => translate(&mut container["State"]["Status"]),
    }
    answer
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_docker_does_not_have_are_its_nearest_ones() {
        let listed =
            json!([{ "State": "stopping" }, { "State": "stopped" }, { "State": "created" }]);
        let listed: Vec<ContainerSummary> =
            serde_json::from_value(in_docker_words(listed)).expect("docker's words");
        let states = listed.iter().map(|one| one.state.expect("a state").to_string());
        assert_eq!(states.collect::<Vec<_>>(), ["running", "exited", "created"]);
        let one = in_docker_words(json!({ "State": { "Status": "stopped" } }));
        assert_eq!(one["State"]["Status"], "exited");
    }

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        assert_eq!(split(b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{}"), Some((404, &b"{}"[..])));
        assert_eq!(split(b"HTTP/1.0 404"), None);
        assert_eq!(encoded("{a"), "%7B%61");
    }
}
