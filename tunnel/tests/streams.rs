//! Two real ends of a tunnel over a socket pair, with real TCP connections on both sides.

#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod common;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mirrord_protocol::Token;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Errno, Frame, Open, OrigDst};
use mirrord_tunnel::{Greeting, OpenError, Tunnel, TunnelError, UnixPipe, accept, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use common::{Agent, Proxy, agent, dial, on_one_thread, pattern};

fn pipes() -> (UnixPipe, UnixPipe) {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    (UnixPipe::new(near).unwrap(), UnixPipe::new(far).unwrap())
}

/// A tunnel whose agent end is alive, and what ended it on this side.
struct Pair {
    tunnel: Tunnel,
    end: Rc<RefCell<Option<TunnelError>>>,
}

async fn pair() -> Pair {
    let (near, far) = pipes();
    pair_over(near, far).await
}

/// The same, where the far ends come themselves.
async fn handing_pair() -> Pair {
    let (near, far) = pipes();
    pair_over(near.taking(), far).await
}

async fn pair_over(near: UnixPipe, far: UnixPipe) -> Pair {
    spawn_local(async move {
        agent(far).await;
    });
    let mut socket = connect(near, &Token::new("t"), None).await.unwrap();
    let tunnel = Tunnel::of_proxy();
    tunnel.greet(&mut socket).await.unwrap();
    let (driven, end) = (tunnel.clone(), Rc::default());
    let ended: Rc<RefCell<Option<TunnelError>>> = Rc::clone(&end);
    spawn_local(async move {
        let error = driven.drive(socket, &Proxy).await;
        ended.replace(Some(error));
    });
    Pair { tunnel, end }
}

impl Pair {
    /// A connection of an app, relayed to `to`.
    async fn dial(&self, to: SocketAddr) -> TcpStream {
        dial(&self.tunnel, to).await
    }

    /// An app and the service that it reached.
    async fn connected(&self) -> (TcpStream, TcpStream) {
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = self.dial(service.local_addr().unwrap()).await;
        let (service, _) = service.accept().await.unwrap();
        (app, service)
    }
}

#[test]
fn bytes_arrive_as_they_were_sent_in_both_directions_at_once() {
    on_one_thread(async {
        for pair in [pair().await, handing_pair().await] {
            let (app, service) = pair.connected().await;
            let sent = pattern(20_000_003);
            let (mut app_in, mut app_out) = app.into_split();
            let (mut service_in, mut service_out) = service.into_split();
            let up = async {
                app_out.write_all(&sent).await.unwrap();
                app_out.shutdown().await.unwrap();
            };
            let down = async {
                service_out.write_all(&sent).await.unwrap();
                service_out.shutdown().await.unwrap();
            };
            let (mut at_service, mut at_app) = (Vec::new(), Vec::new());
            let (_, _, a, b) = tokio::join!(
                up,
                down,
                service_in.read_to_end(&mut at_service),
                app_in.read_to_end(&mut at_app),
            );
            a.unwrap();
            b.unwrap();
            assert!(at_service == sent && at_app == sent);
        }
    });
}

#[test]
fn a_half_close_leaves_the_other_half_open() {
    on_one_thread(async {
        for pair in [pair().await, handing_pair().await] {
            let (mut app, mut service) = pair.connected().await;
            app.write_all(b"question").await.unwrap();
            app.shutdown().await.unwrap();
            let mut question = String::new();
            service.read_to_string(&mut question).await.unwrap();
            assert_eq!(question, "question");
            service.write_all(b"answer, much later").await.unwrap();
            drop(service);
            let mut answer = String::new();
            app.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "answer, much later");
        }
    });
}

#[test]
fn a_reset_is_a_reset_on_the_other_side() {
    on_one_thread(async {
        for pair in [pair().await, handing_pair().await] {
            let (app, mut service) = pair.connected().await;
            app.set_zero_linger().unwrap();
            drop(app);
            let error = service.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

            let (mut app, service) = pair.connected().await;
            service.set_zero_linger().unwrap();
            drop(service);
            let error = app.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    });
}

/// As a server does that answers and closes before it has read all.
#[test]
fn what_comes_before_a_reset_can_be_read() {
    on_one_thread(async {
        for pair in [pair().await, handing_pair().await] {
            let (mut app, mut service) = pair.connected().await;
            app.write_all(b"question").await.unwrap();
            service.read_exact(&mut [0; 8]).await.unwrap();
            service.write_all(b"too large").await.unwrap();
            service.set_zero_linger().unwrap();
            drop(service);
            let mut answer = [0; 9];
            app.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"too large");
            let error = app.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    });
}

/// As a server does that refuses what is too large while it is still sent.
#[test]
fn an_answer_before_a_reset_can_be_read_by_who_still_sends() {
    on_one_thread(async {
        for pair in [pair().await, handing_pair().await] {
            let (app, mut service) = pair.connected().await;
            let (mut from, mut to) = app.into_split();
            spawn_local(async move { while to.write_all(&[7; 4096]).await.is_ok() {} });
            service.read_exact(&mut [0; 8]).await.unwrap();
            service.write_all(b"too large").await.unwrap();
            drop(service);
            let mut answer = [0; 9];
            from.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"too large");
        }
    });
}

#[test]
fn an_urgent_byte_in_a_flow_stays_in_its_place() {
    const FLOW: usize = 300_000;
    on_one_thread(async {
        for pair in [pair().await, handing_pair().await] {
            let (mut app, mut service) = pair.connected().await;
            let reading = spawn_local(async move {
                let mut got = vec![0; FLOW + 5];
                service.read_exact(&mut got).await.unwrap();
                got
            });
            app.write_all(&[7; FLOW]).await.unwrap();
            rustix::net::send(&app, b"!", rustix::net::SendFlags::OOB).unwrap();
            app.write_all(b"tail").await.unwrap();
            let got = tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap();
            assert_eq!(&got.unwrap()[FLOW..], b"!tail");
        }
    });
}

#[test]
fn a_reset_behind_an_end_is_heard_where_nobody_speaks() {
    on_one_thread(async {
        let pair = handing_pair().await;
        let (mut app, mut service) = pair.connected().await;
        app.shutdown().await.unwrap();
        assert_eq!(service.read(&mut [0; 8]).await.unwrap(), 0);
        app.set_zero_linger().unwrap();
        drop(app);
        let heard = service.ready(tokio::io::Interest::ERROR);
        tokio::time::timeout(Duration::from_secs(10), heard).await.unwrap().unwrap();
    });
}

#[test]
fn a_refused_connection_says_with_which_error() {
    on_one_thread(async {
        for pair in [pair().await, handing_pair().await] {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let stream = pair.tunnel.open(Open::Connect(Protocol::Tcp, OrigDst(free)));
            assert_eq!(stream.connected().await, Err(OpenError::Refused(Errno(111))));

            let mut app = pair.dial(free).await;
            let error = app.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn a_slow_reader_holds_back_its_own_sender_and_nobody_else() {
    on_one_thread(async {
        let pair = pair().await;
        let (mut stuck_app, mut stuck_service) = pair.connected().await;
        let chunk = vec![7; 64 << 10];
        let mut written = 0;
        while let Ok(n) =
            tokio::time::timeout(Duration::from_millis(500), stuck_app.write(&chunk)).await
        {
            written += n.unwrap();
            assert!(written < 64 << 20, "nothing holds the sender back");
        }
        let (mut app, mut service) = pair.connected().await;
        app.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        service.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");

        drop(stuck_app);
        let mut rest = Vec::new();
        stuck_service.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), written, "what was taken arrives");
    });
}

#[test]
fn many_streams_at_once_all_get_their_answers() {
    on_one_thread(async {
        for pair in [pair().await, handing_pair().await] {
            let pair = Rc::new(pair);
            let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = service.local_addr().unwrap();
            spawn_local(async move {
                while let Ok((mut socket, _)) = service.accept().await {
                    spawn_local(async move {
                        let (mut from, mut to) = socket.split();
                        tokio::io::copy(&mut from, &mut to).await
                    });
                }
            });
            let mut apps = Vec::new();
            for _ in 0..300 {
                apps.push(pair.dial(address).await);
            }
            for (i, app) in apps.iter_mut().enumerate() {
                app.write_all(&i.to_be_bytes()).await.unwrap();
            }
            for (i, mut app) in apps.into_iter().enumerate() {
                let mut got = [0; 8];
                app.read_exact(&mut got).await.unwrap();
                assert_eq!(usize::from_be_bytes(got), i);
            }
            while pair.tunnel.streams() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

#[test]
fn a_cut_leaves_connections_as_they_are_and_the_end_of_the_tunnel_resets_them() {
    on_one_thread(async {
        let (near, far) = pipes();
        let agent = spawn_local(async move { agent(far).await });
        let mut socket = connect(near, &Token::new("t"), None).await.unwrap();
        let tunnel = Tunnel::of_proxy();
        tunnel.greet(&mut socket).await.unwrap();
        let pair = Pair { tunnel: tunnel.clone(), end: Rc::default() };
        let ended = pair.end.clone();
        spawn_local(async move {
            ended.replace(Some(tunnel.drive(socket, &Proxy).await));
        });
        let (mut app, _service) = pair.connected().await;
        agent.abort();
        while pair.end.borrow().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(pair.end.borrow().as_ref().unwrap().is_cut(), "{:?}", pair.end);
        assert_eq!(app.try_read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        pair.tunnel.end();
        let error = app.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(pair.tunnel.streams(), 0);
    });
}

#[test]
fn what_was_sent_to_its_end_arrives_though_the_tunnel_ends_right_after() {
    on_one_thread(async {
        let (near, far) = pipes();
        spawn_local(async move { agent(far).await });
        let mut socket = connect(near, &Token::new("t"), None).await.unwrap();
        let tunnel = Tunnel::of_proxy();
        tunnel.greet(&mut socket).await.unwrap();
        let pair = Pair { tunnel: tunnel.clone(), end: Rc::default() };
        let driving = spawn_local(async move { tunnel.drive(socket, &Proxy).await });
        let (mut app, mut service) = pair.connected().await;
        let sent = pattern(300_000);
        app.write_all(&sent).await.unwrap();
        drop(app);
        assert!(!pair.tunnel.is_delivered(), "nobody has read it yet");
        let mut got = vec![0; 200_000];
        service.read_exact(&mut got).await.unwrap();
        while !pair.tunnel.is_delivered() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        driving.abort();
        service.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
    });
}

#[test]
fn a_peer_that_breaks_the_rules_ends_the_tunnel() {
    on_one_thread(async {
        for frame in [
            Frame::Open(
                mirrord_protocol::frame::StreamId(1),
                Open::Connect(Protocol::Tcp, OrigDst("1.2.3.4:5".parse().unwrap())),
            ),
            Frame::Describe { env: true },
        ] {
            let (near, far) = pipes();
            let sent = frame.clone();
            spawn_local(async move {
                let mut socket = accept(far, &Token::new("t"), |_| Ok(())).await.unwrap().0;
                let rogue = Tunnel::of(&Greeting::hear(&mut socket).await.unwrap());
                rogue.send(&sent);
                rogue.drive(socket, &Agent).await
            });
            let mut socket = connect(near, &Token::new("t"), None).await.unwrap();
            let tunnel = Tunnel::of_proxy();
            tunnel.greet(&mut socket).await.unwrap();
            let end = tunnel.drive(socket, &Proxy).await;
            let expected = matches!(end, TunnelError::Violation(_) | TunnelError::Unexpected);
            assert!(expected, "{frame:?}: {end}");
        }
    });
}

#[test]
fn a_connection_that_was_handed_over_needs_no_tunnel() {
    on_one_thread(async {
        let pair = handing_pair().await;
        let (mut app, mut service) = pair.connected().await;
        app.write_all(b"question").await.unwrap();
        service.read_exact(&mut [0; 8]).await.unwrap();
        assert_eq!(pair.tunnel.streams(), 0);
        pair.tunnel.end();
        service.write_all(b"answer").await.unwrap();
        drop(service);
        let mut answer = String::new();
        app.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    });
}

#[test]
fn whoever_was_sent_to_its_end_counts_as_delivered() {
    on_one_thread(async {
        let pair = handing_pair().await;
        let (mut app, mut service) = pair.connected().await;
        app.write_all(b"x").await.unwrap();
        service.read_exact(&mut [0]).await.unwrap();
        assert!(!pair.tunnel.is_delivered(), "more may come");
        app.shutdown().await.unwrap();
        assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
        assert!(pair.tunnel.is_delivered());
        service.write_all(b"y").await.unwrap();
        app.read_exact(&mut [0]).await.unwrap();
    });
}

#[test]
fn a_frame_without_what_belongs_beside_it_ends_the_tunnel() {
    on_one_thread(async {
        let (near, far) = pipes();
        spawn_local(async move {
            let mut socket = accept(far, &Token::new("t"), |_| Ok(())).await.unwrap().0;
            let rogue = Tunnel::of(&Greeting::hear(&mut socket).await.unwrap());
            rogue.send(&Frame::Handed(mirrord_protocol::frame::StreamId(1)));
            rogue.drive(socket, &Agent).await
        });
        let mut socket = connect(near.taking(), &Token::new("t"), None).await.unwrap();
        let tunnel = Tunnel::of_proxy();
        tunnel.greet(&mut socket).await.unwrap();
        let end = tunnel.drive(socket, &Proxy).await;
        assert!(matches!(end, TunnelError::Violation(_)), "{end}");
    });
}
