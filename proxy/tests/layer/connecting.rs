//! connect(2).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use crate::agent::{BLACK_HOLE, REACHABLE, REFUSING, TARGET};
use crate::client::named;
use crate::{app, on_one_thread, ready, ready_with, until};

/// Sends back what comes, until its end.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                std::io::copy(&mut socket.try_clone().unwrap(), &mut socket)
            });
        }
    });
    port
}

fn echoes(mut socket: TcpStream, len: usize) {
    let sent: Vec<u8> = (0..len).map(|number| (number % 251) as u8).collect();
    let (mut writer, copy) = (socket.try_clone().unwrap(), sent.clone());
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    socket.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == sent, "{} bytes of {len}", back.len());
}

#[test]
fn a_connection_stands_when_the_far_end_has_answered_and_carries_all_bytes() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let (client, port) = (session.app.clone(), echo());
        app(move || {
            let remote = SocketAddr::from((REACHABLE, port));
            let socket = client.connect(remote).unwrap();
            let page = client.map();
            assert_eq!(page.behind(socket.peer_addr().unwrap()), Some(remote));
            let own = socket.local_addr().unwrap();
            let slot = mirrord_protocol::layer::Slot::of_local(own.ip()).unwrap();
            assert_eq!(page.local(slot), Some((TARGET, own.port()).into()));
            echoes(socket, 3 << 20);
        })
        .await;
    });
}

#[test]
fn a_failure_is_the_far_ends_own() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let fails = |errno: i32| {
                let port = u16::try_from(errno).unwrap();
                named(client.connect((REFUSING, port).into()).unwrap_err())
            };
            assert_eq!(fails(libc::ECONNREFUSED), "refused");
            assert_eq!(fails(libc::EHOSTUNREACH), "unreachable");
            assert_eq!(fails(libc::ETIMEDOUT), "timed out");
            let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            assert_eq!(named(client.connect((REACHABLE, unused).into()).unwrap_err()), "refused");
        })
        .await;
    });
}

#[test]
fn a_socket_that_does_not_block_becomes_writable_when_it_is_decided() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let (client, port) = (session.app.clone(), echo());
        app(move || {
            let start = |remote: SocketAddr| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                let (slot, port) = client.dial(&socket, remote).unwrap();
                socket.set_nonblocking(true).unwrap();
                let error = socket.connect(&SocketAddr::from((slot.remote(), port)).into());
                assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
                (socket, slot)
            };
            let decided = |socket: &Socket, millis: u16| {
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                poll(&mut fds, PollTimeout::from(millis)).unwrap() == 1
            };
            let page = client.map();
            let (good, slot) = start((REACHABLE, port).into());
            assert!(decided(&good, 5000));
            assert!(good.take_error().unwrap().is_none());
            assert_eq!(page.failure(slot), None);
            good.set_nonblocking(false).unwrap();
            echoes(good.into(), 1000);
            let (bad, slot) = start((REFUSING, u16::try_from(libc::ECONNREFUSED).unwrap()).into());
            assert!(decided(&bad, 5000));
            assert_eq!(page.failure(slot), Some(libc::ECONNREFUSED));
            let (open, slot) = start((BLACK_HOLE, 80).into());
            assert!(!decided(&open, 300));
            assert!(page.is_pending(slot));
        })
        .await;
    });
}

#[test]
fn a_connection_that_the_app_gives_up_is_given_up_at_the_agent() {
    on_one_thread(async {
        let (session, agent) = ready().await;
        let client = session.app.clone();
        let (_, slot) = app(move || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let (slot, port) = client.dial(&socket, (BLACK_HOLE, 80).into()).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&SocketAddr::from((slot.remote(), port)).into());
            (client, slot)
        })
        .await;
        until("the agent is asked", || agent.waiting.borrow().len() == 1).await;
        until("it is given up", || agent.waiting.borrow()[0].is_broken()).await;
        assert_eq!(slot.0, 0);
    });
}

#[test]
fn who_asks_and_goes_away_leaves_nothing_at_the_agent() {
    on_one_thread(async {
        let (session, agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let remote = (BLACK_HOLE, 80).into();
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.dial(&socket, remote).unwrap();
        })
        .await;
        until("it is given up", || {
            agent.waiting.borrow().iter().all(mirrord_tunnel::Stream::is_broken)
        })
        .await;
    });
}

#[test]
fn a_socket_that_the_app_has_bound_itself_connects_as_well() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let (client, port) = (session.app.clone(), echo());
        app(move || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).unwrap();
            let own = socket.local_addr().unwrap().as_socket();
            let (slot, port) = client.dial(&socket, (REACHABLE, port).into()).unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket(), own);
            let to = SocketAddr::from((slot.remote(), port));
            socket.connect(&to.into()).unwrap();
            echoes(socket.into(), 1000);
        })
        .await;
    });
}

#[test]
fn what_is_not_for_the_target_is_left_to_the_app() {
    on_one_thread(async {
        let off = ready_with(|config, _| {
            config.outgoing_tcp = false;
            config.outgoing_udp = false;
        });
        let (session, _agent) = off.await;
        let client = session.app.clone();
        app(move || {
            assert_eq!(named(client.connect((REACHABLE, 80).into()).unwrap_err()), "direct");
            assert_eq!(named(client.peer((REACHABLE, 80).into()).unwrap_err()), "direct");
        })
        .await;
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let local = "127.0.0.1:80".parse().unwrap();
            assert_eq!(named(client.connect(local).unwrap_err()), "direct");
            let own = mirrord_netns::addresses::addresses().unwrap();
            for own in own.iter().filter(|own| !own.loopback && own.ip.is_ipv4()) {
                let error = client.connect((own.ip, 80).into()).unwrap_err();
                assert_eq!(named(error), "direct", "{own:?}");
            }
        })
        .await;
    });
}

#[test]
fn the_app_reaches_itself_at_the_targets_address() {
    on_one_thread(async {
        let (session, agent) = ready().await;
        let client = session.app.clone();
        let listening = client.clone();
        let (listener, _) = app(move || listening.listen("0.0.0.0:18080")).await;
        agent.wants(&[18080]).await;
        app(move || {
            let mut socket = client.connect((TARGET, 18080).into()).unwrap();
            let (mut accepted, from) = listener.accept().unwrap();
            assert_eq!(client.map().behind(from), Some((TARGET, 18080).into()));
            accepted.write_all(b"hello").unwrap();
            drop(accepted);
            let mut said = String::new();
            socket.read_to_string(&mut said).unwrap();
            assert_eq!(said, "hello");
        })
        .await;
    });
}

#[test]
fn hundreds_connect_at_once() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let (client, port) = (session.app.clone(), echo());
        let since = Instant::now();
        app(move || {
            let threads: Vec<_> = (0..32)
                .map(|_| {
                    let client = client.clone();
                    std::thread::spawn(move || {
                        for _ in 0..10 {
                            echoes(client.connect((REACHABLE, port).into()).unwrap(), 100);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        })
        .await;
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    });
}
