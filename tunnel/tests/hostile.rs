//! Peers that mean ill or are broken: before they have shown the token, and after.

#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use mirrord_protocol::Token;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{
    Description, Errno, Frame, MAX_FRAME, Open, OrigDst, StreamId, TunnelId,
};
use mirrord_tunnel::{
    Events, Greeting, HandshakeError, Socket, Stream, Tunnel, TunnelError, UnixPipe, Violation,
    accept, connect,
};
use tokio::io::{AsyncWriteExt, duplex};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// First bytes of a WebSocket message: its last fragment or not, its kind, and what compression
/// would set.
const LAST: u8 = 0x80;
const COMPRESSED: u8 = 0x40;
const MORE: u8 = 0;
const BINARY: u8 = 2;

/// An agent that keeps every stream, and uses none.
#[derive(Default)]
struct Hoarder(RefCell<Vec<Stream>>);

impl Events for Hoarder {
    fn opened(&self, stream: Stream, _: Open) {
        self.0.borrow_mut().push(stream);
    }

    fn message(&self, _: Frame) -> Result<(), TunnelError> {
        Err(TunnelError::Unexpected)
    }
}

fn on_one_thread(test: impl Future<Output = ()> + 'static) {
    let limited = async {
        tokio::time::timeout(Duration::from_secs(60), test).await.unwrap();
        std::io::Result::Ok(())
    };
    mirrord_tunnel::on_one_thread(limited).unwrap();
}

fn token() -> Token {
    Token::new("t")
}

/// Somebody with the token, whose tunnel stands; and what becomes of it at the agent.
async fn let_in() -> (Socket<UnixPipe>, JoinHandle<TunnelError>) {
    let_in_by(async |mut socket| {
        let greeting = Greeting::hear(&mut socket).await.unwrap();
        Tunnel::of(&greeting).drive(socket, &Hoarder::default()).await
    })
    .await
}

async fn let_in_by(
    serve: impl AsyncFnOnce(Socket<UnixPipe>) -> TunnelError + 'static,
) -> (Socket<UnixPipe>, JoinHandle<TunnelError>) {
    let (near, far) = UnixStream::pair().unwrap();
    let agent = spawn_local(async move {
        let pipe = UnixPipe::from_tokio(far).unwrap();
        serve(accept(pipe, &token(), |_| Ok(())).await.unwrap().0).await
    });
    let pipe = UnixPipe::from_tokio(near).unwrap();
    let mut peer = connect(pipe, &token(), None).await.unwrap();
    say(&mut peer, &Frame::Hello { tunnel: TunnelId(7), received: None, descriptors: false }).await;
    (peer, agent)
}

async fn say(peer: &mut Socket<UnixPipe>, frame: &Frame) {
    peer.send(Message::Binary(frame.encode())).await.unwrap();
}

/// The first of what the agent says that is wanted.
async fn hear(peer: &mut Socket<UnixPipe>, wanted: impl Fn(&Frame) -> bool) -> Frame {
    loop {
        if let Message::Binary(bytes) = peer.next().await.unwrap().unwrap() {
            let frame = Frame::decode(bytes).unwrap();
            if wanted(&frame) {
                return frame;
            }
        }
    }
}

async fn is_answered(peer: &mut Socket<UnixPipe>) {
    say(peer, &Frame::Ping(4711)).await;
    hear(peer, |frame| *frame == Frame::Pong(4711)).await;
}

/// A piece of a WebSocket message as a client writes it, with a mask that changes nothing.
fn piece(first: u8, len: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend((len as u64).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// What becomes of the tunnel when its peer writes that.
async fn outcome(bytes: &[u8]) -> TunnelError {
    let (peer, agent) = let_in().await;
    let mut pipe = peer.into_inner();
    // The agent may have had enough before all is written.
    let _ = pipe.write_all(bytes).await;
    agent.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_handshake_in_drops_has_no_more_time_than_one_at_once() {
    let (mut near, far) = duplex(4096);
    let drops = async move {
        for byte in b"GET /tunnel HTTP/1.1\r\nHost: x\r\n".iter().cycle() {
            tokio::time::sleep(Duration::from_millis(900)).await;
            if near.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    let begun = Instant::now();
    let (_, refused) = tokio::join!(tokio::time::timeout(Duration::from_secs(60), drops), async {
        accept(far, &token(), |_| Ok(())).await.map(|_| ())
    });
    assert!(matches!(refused, Err(HandshakeError::Silent)), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn first_words_of_a_tunnel_in_drops_have_no_more_time_either() {
    let (near, far) = duplex(4096);
    let config = Some(WebSocketConfig::default());
    let mut peer = WebSocketStream::from_raw_socket(near, Role::Client, config).await;
    let mut socket = mirrord_tunnel::adopt(far).await;
    let drops = async move {
        let pipe = peer.get_mut();
        for byte in piece(BINARY | LAST, 100, &[0; 100]) {
            tokio::time::sleep(Duration::from_millis(900)).await;
            if pipe.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        heard = Greeting::hear(&mut socket) => {
            assert!(matches!(heard, Err(TunnelError::Silent)), "{heard:?}");
        }
        () = drops => panic!("all was taken"),
    }
}

#[tokio::test]
async fn garbage_and_headers_without_end_are_no_handshake() {
    let endless = [b"GET /tunnel HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(50_000)].concat();
    let line = [b"GET /".as_slice(), &[b'x'; 300_000]].concat();
    for bytes in [vec![0xff; 100_000], vec![0; 100_000], b"\r\n\r\n".to_vec(), endless, line] {
        let (mut near, far) = duplex(1 << 20);
        near.write_all(&bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let refused = accept(far, &token(), |_| Ok(())).await.map(|_| ());
        assert!(matches!(refused, Err(HandshakeError::WebSocket(_))), "{refused:?}");
    }
}

#[test]
fn a_message_that_is_too_long_ends_the_tunnel_before_it_is_read() {
    on_one_thread(async {
        for len in [MAX_FRAME + 1, usize::MAX >> 1] {
            let error = outcome(&piece(BINARY | LAST, len, b"")).await;
            assert!(matches!(error, TunnelError::Foreign(_)), "{error:?}");
        }
    });
}

#[test]
fn fragments_that_become_too_long_end_the_tunnel() {
    on_one_thread(async {
        let half = vec![0; MAX_FRAME / 2 + 1];
        let first = piece(BINARY, half.len(), &half);
        let second = piece(MORE, half.len(), &half);
        let error = outcome(&[first, second].concat()).await;
        assert!(matches!(error, TunnelError::Foreign(_)), "{error:?}");
    });
}

#[test]
fn a_frame_in_fragments_is_a_frame() {
    on_one_thread(async {
        let (mut peer, _agent) = let_in().await;
        let frame = Frame::Ping(99).encode();
        let (one, other) = frame.split_at(frame.len() / 2);
        let pieces =
            [piece(BINARY, one.len(), one), piece(MORE | LAST, other.len(), other)].concat();
        peer.get_mut().write_all(&pieces).await.unwrap();
        hear(&mut peer, |frame| *frame == Frame::Pong(99)).await;
    });
}

#[test]
fn what_was_not_agreed_upon_ends_the_tunnel() {
    on_one_thread(async {
        let frame = Frame::Ping(1).encode();
        let error = outcome(&piece(BINARY | LAST | COMPRESSED, frame.len(), &frame)).await;
        assert!(matches!(error, TunnelError::Foreign(_)), "compressed: {error:?}");
        let unmasked = [&[BINARY | LAST, frame.len() as u8][..], &frame].concat();
        let error = outcome(&unmasked).await;
        assert!(matches!(error, TunnelError::Foreign(_)), "unmasked: {error:?}");
        let error = outcome(&piece(LAST | 1, 4, b"text")).await;
        assert!(matches!(error, TunnelError::Unexpected), "text: {error:?}");
        for bytes in [&[][..], &[0xff; 64]] {
            let error = outcome(&piece(BINARY | LAST, bytes.len(), bytes)).await;
            assert!(matches!(error, TunnelError::Decode(_)), "no frame: {error:?}");
        }
    });
}

#[test]
fn a_flood_of_pings_that_hears_no_answer_stalls_nothing() {
    on_one_thread(async {
        let (mut peer, agent) = let_in().await;
        let ping = piece(9 | LAST, 100, &[0; 100]);
        for _ in 0..1000 {
            peer.get_mut().write_all(&ping.repeat(100)).await.unwrap();
        }
        is_answered(&mut peer).await;
        assert!(!agent.is_finished());
    });
}

#[test]
fn streams_that_are_opened_and_never_used_are_refused_when_they_are_too_many() {
    const MOST: u32 = 2 << 16;
    on_one_thread(async {
        let (mut peer, _agent) = let_in().await;
        let to = OrigDst("192.0.2.1:9".parse().unwrap());
        for number in 0..=MOST {
            let open = Frame::Open(StreamId(2 * number + 1), Open::Connect(Protocol::Tcp, to));
            peer.feed(Message::Binary(open.encode())).await.unwrap();
        }
        peer.flush().await.unwrap();
        let refused = hear(&mut peer, |frame| matches!(frame, Frame::Refused(..))).await;
        assert_eq!(refused, Frame::Refused(StreamId(2 * MOST + 1), Errno(24)));
        is_answered(&mut peer).await;
    });
}

/// An agent that answers with as much as a frame may carry.
struct Describer(Tunnel);

impl Events for Describer {
    fn opened(&self, _: Stream, _: Open) {}

    fn message(&self, _: Frame) -> Result<(), TunnelError> {
        let (hostname, addresses, environ) = (String::new(), Vec::new(), Bytes::new());
        let (resolv_conf, hosts) = (Bytes::from(vec![b'#'; 60_000]), Bytes::new());
        let description = Description { hostname, addresses, resolv_conf, hosts, environ };
        self.0.send(&Frame::Description(Box::new(description)));
        Ok(())
    }
}

#[test]
fn who_asks_and_asks_and_reads_no_answer_is_not_served_for_ever() {
    on_one_thread(async {
        let serve = async |mut socket: Socket<UnixPipe>| {
            let tunnel = Tunnel::of(&Greeting::hear(&mut socket).await.unwrap());
            tunnel.drive(socket, &Describer(tunnel.clone())).await
        };
        let (mut peer, agent) = let_in_by(serve).await;
        let describe = Frame::Describe { env: false }.encode();
        // So many answers are twice as much as the agent holds.
        for _ in 0..2 * (64 << 20) / 60_000 {
            let _ = peer.send(Message::Binary(describe.clone())).await;
        }
        let error = agent.await.unwrap();
        assert!(matches!(error, TunnelError::Violation(Violation::Flood)), "{error}");
    });
}
