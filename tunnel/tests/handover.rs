//! Pipes that cross a unix socket, and tunnels over them.

#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use mirrord_protocol::Token;
use mirrord_tunnel::handover::{Handover, HandoverError, Header, receive, released, send};
use mirrord_tunnel::{HandedPipe, Pipe, UnixPipe, accept, connect};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

fn sockets() -> (StdUnixStream, UnixStream) {
    let (near, far) = StdUnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    (near, UnixStream::from_std(far).unwrap())
}

fn header(target: u16, container: Option<&str>) -> Header {
    Header { target, container: container.map(str::to_owned), direct: false }
}

/// Two pipes crosswise: what one end writes the other reads.
fn crossed() -> [(OwnedFd, OwnedFd); 2] {
    let (near_reader, far_writer) = nix::unistd::pipe().unwrap();
    let (far_reader, near_writer) = nix::unistd::pipe().unwrap();
    [(near_reader, near_writer), (far_reader, far_writer)]
}

fn send_raw(to: &StdUnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
}

/// What becomes of such a message, and whether its descriptors are closed afterwards.
async fn refused(bytes: &[u8], count: usize) -> (HandoverError, bool) {
    let (near, far) = sockets();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    send_raw(&near, bytes, &vec![writer.as_fd(); count]);
    drop((near, writer));
    let error = receive(&far).await.unwrap_err();
    drop(far);
    let all_closed = nix::unistd::read(&reader, &mut [0]) == Ok(0);
    (error, all_closed)
}

#[tokio::test]
async fn a_pipe_arrives_with_its_header() {
    let (near, far) = sockets();
    let [(reader, writer), (other_reader, other_writer)] = crossed();
    let sent = header(7, Some("containerd:0a-b.c_d"));
    send(&near, &sent, reader.as_fd(), writer.as_fd()).unwrap();
    let Handover { header, reader, writer } = receive(&far).await.unwrap();
    assert_eq!(header, sent);
    std::fs::File::from(writer).write_all(b"x").unwrap();
    std::fs::File::from(other_writer).write_all(b"y").unwrap();
    let mut byte = [0];
    nix::unistd::read(&other_reader, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
    nix::unistd::read(&reader, &mut byte).unwrap();
    assert_eq!(&byte, b"y");
}

#[tokio::test]
async fn the_sender_is_released_when_the_pipe_is_let_go() {
    for taken in [true, false] {
        let (near, far) = sockets();
        let [(reader, writer), _] = crossed();
        send(&near, &header(0, None), reader.as_fd(), writer.as_fd()).unwrap();
        let waiting = std::thread::spawn(move || released(&near));
        if taken {
            let pipe = receive(&far).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            assert!(!waiting.is_finished());
            drop(pipe);
        }
        drop(far);
        assert_eq!(waiting.join().unwrap().is_ok(), taken);
    }
}

#[tokio::test]
async fn a_header_in_pieces_is_put_together() {
    let (mut near, far) = sockets();
    let [(reader, writer), _] = crossed();
    send_raw(&near, b"{\"target\":1,", &[reader.as_fd(), writer.as_fd()]);
    let rest = async {
        tokio::task::yield_now().await;
        near.write_all(b"\"container\":null}\n").unwrap();
    };
    let (received, ()) = tokio::join!(receive(&far), rest);
    assert_eq!(received.unwrap().header, header(1, None));
}

#[tokio::test]
async fn another_number_of_descriptors_is_refused_and_closed() {
    for count in [0, 1, 3, 4, 8] {
        let (error, closed) = refused(b"{\"target\":0,\"container\":null}\n", count).await;
        assert!(matches!(error, HandoverError::Descriptors(_)), "{count}: {error}");
        assert!(closed, "{count}");
    }
}

#[tokio::test]
async fn garbage_is_refused_and_its_descriptors_closed() {
    let long = [b'x'; 600];
    type Expected = fn(&HandoverError) -> bool;
    let cases: [(&[u8], Expected); 7] = [
        (b"hello\n", |error| matches!(error, HandoverError::Header(_))),
        (b"{\"target\":70000}\n", |error| matches!(error, HandoverError::Header(_))),
        (b"{\"target\":0,\"x\":1}\n", |error| matches!(error, HandoverError::Header(_))),
        (b"{\"target\":0,\"container\":\"a/b\"}\n", |e| matches!(e, HandoverError::Container)),
        (b"{\"target\":0}", |error| matches!(error, HandoverError::Cut)),
        (b"{\"target\":0}\nmore", |error| matches!(error, HandoverError::TooMuch)),
        (&long, |error| matches!(error, HandoverError::TooLong)),
    ];
    for (bytes, expected) in cases {
        let (error, closed) = refused(bytes, 2).await;
        assert!(expected(&error), "{}: {error:?}", String::from_utf8_lossy(bytes));
        assert!(closed, "{}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_given_up() {
    let (_near, far) = sockets();
    assert!(matches!(receive(&far).await.unwrap_err(), HandoverError::Silent));
}

#[test]
fn an_id_that_is_none_is_not_sent() {
    let (near, _far) = StdUnixStream::pair().unwrap();
    let [(reader, writer), _] = crossed();
    let error = send(&near, &header(0, Some("a b")), reader.as_fd(), writer.as_fd()).unwrap_err();
    assert!(matches!(error, HandoverError::Container));
}

/// Shakes hands, then sends more than any buffer holds, both ways at once.
async fn carries(near: Pipe, far: Pipe) {
    let token = Token::new("t");
    let (near, far) =
        tokio::join!(connect(near, &token, Some("c")), accept(far, &token, |_| Ok(())));
    let (near, far) = (near.unwrap().into_inner(), far.unwrap().0.into_inner());
    let (there, back) = tokio::join!(exchange(near), exchange(far));
    assert_eq!((there, back), (LEN, LEN));
}

const LEN: usize = 8 << 20;

async fn exchange(pipe: Pipe) -> usize {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let write = async {
        writer.write_all(&vec![7; LEN]).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (read, ()) = tokio::join!(reader.read_to_end(&mut received), write);
    assert!(received.iter().all(|byte| *byte == 7));
    read.unwrap()
}

#[tokio::test]
async fn pipes_carry_a_tunnel_and_end_one_direction_at_a_time() {
    let [near, far] = crossed().map(|(reader, writer)| HandedPipe::new(reader, writer).unwrap());
    carries(near.into(), far.into()).await;
}

#[tokio::test]
async fn sockets_as_both_descriptors_carry_a_tunnel() {
    let ends = StdUnixStream::pair().unwrap();
    let handed = |socket: StdUnixStream| {
        HandedPipe::new(socket.try_clone().unwrap().into(), socket.into()).unwrap()
    };
    let token = Token::new("t");
    let (near, far) = (handed(ends.0), handed(ends.1));
    let (near, far) = tokio::join!(connect(near, &token, None), accept(far, &token, |_| Ok(())));
    near.unwrap();
    far.unwrap();
}

#[tokio::test]
async fn unix_and_tcp_sockets_carry_a_tunnel() {
    let (near, far) = StdUnixStream::pair().unwrap();
    carries(UnixPipe::new(near).unwrap().into(), UnixPipe::new(far).unwrap().into()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    carries(Pipe::tcp(near).unwrap(), Pipe::tcp(far).unwrap()).await;
}

#[tokio::test]
async fn a_file_is_no_pipe() {
    let file = || OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
    assert!(HandedPipe::new(file(), file()).is_err());
}

#[tokio::test]
async fn the_death_of_the_other_end_ends_a_pipe() {
    let [(reader, writer), other] = crossed();
    let mut pipe = HandedPipe::new(reader, writer).unwrap();
    let (read, ()) = tokio::join!(async { pipe.read(&mut [0; 8]).await }, async { drop(other) });
    assert_eq!(read.unwrap(), 0);
    let error = pipe.write_all(&[0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}
