//! How the two ends recognise each other: a WebSocket upgrade that names the protocol's version
//! and shows the session's token.

use std::time::Duration;

use mirrord_protocol::Token;
use mirrord_protocol::frame::{MAX_FRAME, SUBPROTOCOL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Error as WebSocketError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

/// A pipe whose two ends have recognised each other.
pub type Socket<P> = WebSocketStream<P>;

/// A peer that says nothing for so long is not ours.
const PATIENCE: Duration = Duration::from_secs(5);
const ORIGIN: &str = "ws://mirrord";
const PATH: &str = "/tunnel";
/// No engine's ids of containers are longer.
const MAX_CONTAINER: usize = 128;

/// Why a pipe did not become a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other end said nothing in time.
    #[error("the other end of the tunnel did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// The other end refused us, or we it.
    #[error("{0}")]
    Refused(String),
    /// The pipe broke, or what came was no WebSocket handshake.
    #[error("tunnel handshake failed")]
    WebSocket(#[source] Box<WebSocketError>),
    /// The pipe can't be used.
    #[error("the tunnel's pipe can't be used")]
    Pipe(#[source] std::io::Error),
    /// The target's container id can't travel in a path.
    #[error("{0:?} is not a container's id")]
    Container(String),
    /// The token can't travel in a header.
    #[error("the session's token is not printable ASCII")]
    Token,
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
        .read_buffer_size(128 << 10)
        .write_buffer_size(128 << 10)
}

/// The proxy's side: shows the token, and names the target's container where the agent serves more
/// places than its own.
///
/// # Errors
/// The other end is silent for 5 s, refuses token, version or target, or is no agent.
pub async fn connect<P>(
    pipe: P,
    token: &Token,
    target: Option<&str>,
) -> Result<Socket<P>, HandshakeError>
where
    P: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = url(target)?.into_client_request().map_err(broken)?;
    let mut secret = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
        .map_err(|_| HandshakeError::Token)?;
    secret.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, secret);
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let handshake = client_async_with_config(request, pipe, Some(config()));
    match tokio::time::timeout(PATIENCE, handshake).await {
        Err(_) => Err(HandshakeError::Silent),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(WebSocketError::Http(answer))) => {
            let reason = answer.body().as_deref().unwrap_or_default();
            let reason = String::from_utf8_lossy(reason);
            Err(HandshakeError::Refused(format!("the agent refused the tunnel: {reason}")))
        }
        Ok(Err(error)) => Err(broken(error)),
    }
}

fn url(target: Option<&str>) -> Result<String, HandshakeError> {
    match target {
        None => Ok(format!("{ORIGIN}{PATH}")),
        Some(id) if is_container(id) => Ok(format!("{ORIGIN}{PATH}/{id}")),
        Some(id) => Err(HandshakeError::Container(id.to_owned())),
    }
}

/// The agent's side: lets in who has the token and speaks this version, if `admit` knows the
/// container that the peer names. What `admit` refuses, the peer is told.
///
/// # Errors
/// As [`connect`], seen from here.
pub async fn accept<P, T>(
    pipe: P,
    token: &Token,
    admit: impl FnOnce(Option<&str>) -> Result<T, String> + Unpin,
) -> Result<(Socket<P>, T), HandshakeError>
where
    P: AsyncRead + AsyncWrite + Unpin,
{
    let (mut refusal, mut admitted) = (None, None);
    #[allow(clippy::result_large_err, reason = "tungstenite's own signature")]
    let judge = |request: &Request, mut response: Response| match judge(request, token, admit) {
        Ok(known) => {
            admitted = Some(known);
            let chosen = HeaderValue::from_static(SUBPROTOCOL);
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
            Ok(response)
        }
        Err((status, reason)) => {
            let mut answer = ErrorResponse::new(Some(reason.clone()));
            *answer.status_mut() = status;
            refusal = Some(reason);
            Err(answer)
        }
    };
    let handshake = accept_hdr_async_with_config(pipe, judge, Some(config()));
    let result = tokio::time::timeout(PATIENCE, handshake).await;
    match (result, admitted, refusal) {
        (Err(_), ..) => Err(HandshakeError::Silent),
        (_, _, Some(reason)) => Err(HandshakeError::Refused(reason)),
        (Ok(Err(error)), ..) => Err(broken(error)),
        (Ok(Ok(socket)), Some(known), None) => Ok((socket, known)),
        (Ok(Ok(_)), None, None) => Err(HandshakeError::Silent),
    }
}

/// The agent's side of a pipe whose handshake is done: nothing of the tunnel has been read.
pub async fn adopt<P>(pipe: P) -> Socket<P>
where
    P: AsyncRead + AsyncWrite + Unpin,
{
    WebSocketStream::from_raw_socket(pipe, Role::Server, Some(config())).await
}

fn judge<T>(
    request: &Request,
    token: &Token,
    admit: impl FnOnce(Option<&str>) -> Result<T, String>,
) -> Result<T, (StatusCode, String)> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let shown = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    if !token.matches(shown.unwrap_or_default()) {
        return Err((StatusCode::UNAUTHORIZED, "the token is not this session's".into()));
    }
    let offered = header(SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    if !offered.split(',').any(|name| name.trim() == SUBPROTOCOL) {
        let reason = format!("it speaks {SUBPROTOCOL:?}, not {offered:?}");
        return Err((StatusCode::BAD_REQUEST, reason));
    }
    let container = match request.uri().path().strip_prefix(PATH) {
        Some("") => None,
        Some(path) if path.strip_prefix('/').is_some_and(is_container) => path.strip_prefix('/'),
        _ => return Err((StatusCode::NOT_FOUND, "there is no such place here".into())),
    };
    admit(container).map_err(|reason| (StatusCode::NOT_FOUND, reason))
}

/// Whether this can be the id of a container.
pub(crate) fn is_container(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    (1..=MAX_CONTAINER).contains(&id.len()) && id.bytes().all(fits)
}

fn broken(error: WebSocketError) -> HandshakeError {
    HandshakeError::WebSocket(Box::new(error))
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    fn anyone(_: Option<&str>) -> Result<(), String> {
        Ok(())
    }

    async fn both(ours: &str, theirs: &str) -> (Result<(), String>, Result<(), String>) {
        let (near, far) = tokio::io::duplex(4096);
        let (ours, theirs) = (Token::new(ours), Token::new(theirs));
        let (client, server) =
            tokio::join!(connect(near, &ours, None), accept(far, &theirs, anyone));
        (client.map(drop).map_err(|e| e.to_string()), server.map(drop).map_err(|e| e.to_string()))
    }

    #[tokio::test]
    async fn the_same_token_makes_a_tunnel() {
        assert_eq!(both("secret", "secret").await, (Ok(()), Ok(())));
    }

    #[tokio::test]
    async fn another_token_is_refused_and_never_shown() {
        let (client, server) = both("guess", "secret").await;
        let (client, server) = (client.unwrap_err(), server.unwrap_err());
        assert_eq!(client, "the agent refused the tunnel: the token is not this session's");
        assert_eq!(server, "the token is not this session's");
    }

    #[tokio::test]
    async fn another_version_is_refused_by_name() {
        let (mut near, far) = tokio::io::duplex(4096);
        let request = "GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer secret\r\nSec-WebSocket-Protocol: mirrord.99\r\n\r\n";
        near.write_all(request.as_bytes()).await.unwrap();
        let error = accept(far, &Token::new("secret"), anyone).await.unwrap_err().to_string();
        assert_eq!(error, "it speaks \"mirrord.1\", not \"mirrord.99\"");
    }

    async fn asked_for(target: Option<&str>) -> (Result<(), String>, Option<Option<String>>) {
        let (near, far) = tokio::io::duplex(4096);
        let token = Token::new("secret");
        let mut asked = None;
        let admit = |target: Option<&str>| {
            asked = Some(target.map(str::to_owned));
            if target == Some("gone") { Err("the container is gone".into()) } else { Ok(()) }
        };
        let (client, _) = tokio::join!(connect(near, &token, target), accept(far, &token, admit));
        (client.map(drop).map_err(|e| e.to_string()), asked)
    }

    #[tokio::test]
    async fn the_container_that_is_named_is_the_one_that_is_asked_for() {
        assert_eq!(asked_for(None).await, (Ok(()), Some(None)));
        let id = "a".repeat(MAX_CONTAINER);
        assert_eq!(asked_for(Some(&id)).await, (Ok(()), Some(Some(id))));
    }

    #[tokio::test]
    async fn a_target_that_is_not_admitted_is_refused_with_the_reason() {
        let (client, _) = asked_for(Some("gone")).await;
        assert_eq!(client.unwrap_err(), "the agent refused the tunnel: the container is gone");
    }

    #[tokio::test]
    async fn what_is_no_container_id_is_not_asked_for() {
        for id in ["", "a/b", "a b", "..%2f", "é", &"a".repeat(MAX_CONTAINER + 1)] {
            let (near, _far) = tokio::io::duplex(4096);
            let error = connect(near, &Token::new("secret"), Some(id)).await.unwrap_err();
            assert!(matches!(error, HandshakeError::Container(_)), "{id}: {error}");
        }
    }

    /// What the agent says to a request for `path` that shows `token`.
    async fn answer(path: &str, token: &str) -> String {
        let (mut near, far) = tokio::io::duplex(4096);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: mirrord.1\r\n\r\n"
        );
        near.write_all(request.as_bytes()).await.unwrap();
        let never = |_: Option<&str>| -> Result<(), String> { panic!("asked for {path}") };
        let _ = accept(far, &Token::new("secret"), never).await;
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn another_path_is_no_place_and_is_not_named_to_who_has_no_token() {
        for path in ["/", "/tunnelx", "/tunnel/", "/tunnel/a/b", "/tunnel/a%20b", "/x/tunnel"] {
            assert_eq!(answer(path, "secret").await, "HTTP/1.1 404 Not Found", "{path}");
            assert_eq!(answer(path, "guess").await, "HTTP/1.1 401 Unauthorized", "{path}");
        }
    }

    #[tokio::test]
    async fn a_pipe_that_was_let_in_can_be_adopted_elsewhere() {
        let (near, far) = tokio::io::duplex(4096);
        let token = Token::new("secret");
        let (client, server) =
            tokio::join!(connect(near, &token, None), accept(far, &token, anyone));
        let mut server = adopt(server.unwrap().0.into_inner()).await;
        let mut client = client.unwrap();
        client.send(Message::Binary("hello".into())).await.unwrap();
        assert_eq!(server.next().await.unwrap().unwrap(), Message::Binary("hello".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_given_up() {
        let (_near, far) = tokio::io::duplex(4096);
        let error = accept(far, &Token::new("secret"), anyone).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Silent), "{error}");
    }
}
