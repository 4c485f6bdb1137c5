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
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

/// A pipe whose two ends have recognised each other.
pub type Socket<P> = WebSocketStream<P>;

/// A peer that says nothing for so long is not ours.
const PATIENCE: Duration = Duration::from_secs(5);
const URL: &str = "ws://mirrord/tunnel";

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

/// The proxy's side: shows the token.
///
/// # Errors
/// The other end is silent for 5 s, refuses token or version, or is no agent.
pub async fn connect<P>(pipe: P, token: &Token) -> Result<Socket<P>, HandshakeError>
where
    P: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = URL.into_client_request().map_err(broken)?;
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

/// The agent's side: lets in who has the token and speaks this version.
///
/// # Errors
/// As [`connect`], seen from here.
pub async fn accept<P>(pipe: P, token: &Token) -> Result<Socket<P>, HandshakeError>
where
    P: AsyncRead + AsyncWrite + Unpin,
{
    let mut refusal = None;
    #[allow(clippy::result_large_err, reason = "tungstenite's own signature")]
    let judge = |request: &Request, mut response: Response| match judge(request, token) {
        Ok(()) => {
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
    match (result, refusal) {
        (Err(_), _) => Err(HandshakeError::Silent),
        (_, Some(reason)) => Err(HandshakeError::Refused(reason)),
        (Ok(result), None) => result.map_err(broken),
    }
}

fn judge(request: &Request, token: &Token) -> Result<(), (StatusCode, String)> {
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
    Ok(())
}

fn broken(error: WebSocketError) -> HandshakeError {
    HandshakeError::WebSocket(Box::new(error))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn both(ours: &str, theirs: &str) -> (Result<(), String>, Result<(), String>) {
        let (near, far) = tokio::io::duplex(4096);
        let (ours, theirs) = (Token::new(ours), Token::new(theirs));
        let (client, server) = tokio::join!(connect(near, &ours), accept(far, &theirs));
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
        let error = accept(far, &Token::new("secret")).await.unwrap_err().to_string();
        assert_eq!(error, "it speaks \"mirrord.1\", not \"mirrord.99\"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_given_up() {
        let (_near, far) = tokio::io::duplex(4096);
        let error = accept(far, &Token::new("secret")).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Silent), "{error}");
    }
}
