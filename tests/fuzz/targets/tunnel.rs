//! What a peer sends through a tunnel once it was let in: raw WebSocket, and messages that are
//! right but for what is in them.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use mirrord_protocol::frame::{Frame, Open, TunnelId};
use mirrord_tunnel::{Events, Greeting, Stream, Tunnel, TunnelError, UnixPipe, adopt};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

#[path = "shared/runtime.rs"]
mod runtime;

/// Keeps every other stream.
#[derive(Default)]
struct Keeper(RefCell<Vec<Option<Stream>>>);

impl Events for Keeper {
    fn opened(&self, stream: Stream, _: Open) {
        let keep = self.0.borrow().len() % 2 == 0;
        self.0.borrow_mut().push(keep.then_some(stream));
    }

    fn message(&self, _: Frame) -> Result<(), TunnelError> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((how, said)) = data.split_first() else { return };
    let sent = if how % 4 == 0 { said.to_vec() } else { messages(said) };
    runtime::run(async {
        let (mut near, far) = UnixStream::pair().expect("a pair");
        let far = UnixPipe::from_tokio(far).expect("a pipe");
        let far = if how & 4 != 0 { far.taking() } else { far };
        near.write_all(&sent).await.expect("room");
        near.shutdown().await.expect("a pipe");
        let tunnel = Tunnel::of(&Greeting {
            tunnel: TunnelId(7),
            received: None,
            descriptors: how & 4 != 0,
        });
        let _ = tunnel.drive(adopt(far).await, &Keeper::default()).await;
        tunnel.end();
    });
});

/// Each byte says how long the message behind it is.
fn messages(mut said: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    while let Some((len, more)) = said.split_first() {
        let (message, rest) = more.split_at(usize::from(len % 126).min(more.len()));
        sent.extend([0x82, 0x80 | message.len() as u8, 0, 0, 0, 0]);
        sent.extend(message);
        said = rest;
    }
    sent
}
