//! What comes to the agent's socket before the token was shown: raw bytes, and headers of a request
//! that is right but for them. Who does not know the token is not let in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mirrord_protocol::Token;
use mirrord_tunnel::accept;
use tokio::io::{AsyncWriteExt, duplex};

#[path = "shared/runtime.rs"]
mod runtime;

const TOKEN: &str = "s3cret";
const REQUEST: &str = "GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fuzz_target!(|data: &[u8]| {
    let Some((how, said)) = data.split_first() else { return };
    let sent = match how % 3 {
        0 => said.to_vec(),
        1 => [REQUEST.as_bytes(), said, b"\r\n\r\n"].concat(),
        _ => [REQUEST.as_bytes(), b"Authorization: Bearer ", said, b"\r\n\r\n"].concat(),
    };
    runtime::run(async {
        let (mut near, far) = duplex(1 << 16);
        near.write_all(&sent).await.expect("room");
        near.shutdown().await.expect("a pipe");
        let admitted = accept(far, &Token::new(TOKEN), |_| Ok(())).await.is_ok();
        assert!(!admitted || String::from_utf8_lossy(&sent).contains(TOKEN));
    });
});
