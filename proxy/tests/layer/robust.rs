//! What must not shake it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use mirrord_protocol::control::{Protocol, ProxyEvent};
use mirrord_protocol::layer::{Request, Status, Transport};
use nix::libc;
use nix::sys::signal::kill;
use socket2::{Domain, Socket, Type};

use crate::agent::{Agent, REACHABLE, REFUSING};
use crate::client::{App, receive, send, udp};
use crate::{app, on_one_thread, ready, until};

fn descriptors(session: &crate::session::Session) -> usize {
    session.app.map();
    fs::read_dir(format!("/proc/{}/fd", session.worker())).unwrap().count()
}

#[test]
fn strangers_and_garbage_are_turned_away() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let map =
                |key: [u8; 16]| App { key, ..client.clone() }.ask_with(&Request::Map, None).is_ok();
            assert!(map(client.key));
            assert!(!map([0; 16]), "another key");
            for garbage in [&[0xff; 320][..], &[0; 4096], &[7; 16]] {
                let mut socket = client.reach();
                let _ = socket.write_all(garbage);
                let _ = socket.shutdown(std::net::Shutdown::Write);
                assert!(matches!(socket.read(&mut [0; 8]), Ok(0) | Err(_)));
            }
            assert!(map(client.key));
        })
        .await;
    });
}

#[test]
fn a_thousand_that_say_nothing_hold_nobody_up_for_long() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let before = descriptors(&session);
        let client = session.app.clone();
        let silent = app(move || {
            let silent: Vec<_> = (0..1000).map(|_| client.reach()).collect();
            let since = Instant::now();
            assert_eq!(client.ask(&Request::Map).reply.status, Status::Done);
            assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
            silent
        })
        .await;
        until("they are turned away", || descriptors(&session) <= before).await;
        drop(silent);
    });
}

#[test]
fn other_users_that_say_nothing_take_no_room_from_the_sessions() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can be somebody else");
    }
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let before = descriptors(&session);
        let program = r#"
use Socket;
for my $n (1..300) {
    socket(my $s, AF_UNIX, SOCK_STREAM, 0) || die $!;
    connect($s, pack("S a*", AF_UNIX, "\0$ARGV[0]")) || die $!;
    push @all, $s;
}
$| = 1; print "there"; sleep 60;
"#;
        let mut others = std::process::Command::new("perl")
            .args(["-e", program])
            .uid(65534)
            .gid(65534)
            .arg(&session.app.socket)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        others.stdout.take().unwrap().read_exact(&mut said).unwrap();
        // Some have just been accepted and are about to be turned away, and the session may have
        // opened something of its own meanwhile: far from three hundred.
        let now = descriptors(&session);
        assert!(now <= before + 64 + 16, "{before}, then {now}");
        others.kill().unwrap();
        others.wait().unwrap();
    });
}

#[test]
fn descriptors_that_are_not_wanted_are_closed() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let before = descriptors(&session);
        let client = session.app.clone();
        app(move || {
            let null = File::open("/dev/null").unwrap();
            for _ in 0..500 {
                client.ask_with(&Request::Map, Some(null.as_fd())).unwrap();
            }
            let bind = |fd: Option<std::os::fd::BorrowedFd<'_>>| {
                let address = "0.0.0.0:80".parse().unwrap();
                let request = Request::Bind { transport: Transport::Tcp, address, shared: false };
                let reply = client.ask_with(&request, fd).unwrap().reply;
                assert_eq!(reply.status, Status::Refused);
                i32::try_from(reply.value).unwrap()
            };
            assert_eq!(bind(None), libc::EBADF);
            assert_eq!(bind(Some(null.as_fd())), libc::ENOTSOCK);
            let exec = client.ask_with(&Request::Exec, None).unwrap().reply;
            assert_eq!(exec.status, Status::Refused);
            let exec = client.ask_with(&Request::Exec, Some(null.as_fd())).unwrap().reply;
            assert_eq!(exec.status, Status::Refused);
        })
        .await;
        until("they are closed", || descriptors(&session) <= before).await;
    });
}

#[test]
fn questions_that_break_off_leave_nothing() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let before = descriptors(&session);
        let client = session.app.clone();
        app(move || {
            let remote = (REACHABLE, 9).into();
            for request in [Request::Map, Request::Dial { remote }, Request::Peer { remote }] {
                let bytes = request.encode(&client.key);
                for len in [1, 17, 319, 320] {
                    let socket = client.reach();
                    send(&socket, &bytes[..len], None).unwrap();
                }
            }
            // What is no socket, and one that can't be bound.
            let file = std::fs::File::open("/dev/null").unwrap();
            let pair = std::os::unix::net::UnixStream::pair().unwrap().0;
            for (fd, errno) in [(file.as_fd(), libc::ENOTSOCK), (pair.as_fd(), libc::EAFNOSUPPORT)]
            {
                let reply = client.ask_with(&Request::Dial { remote }, Some(fd)).unwrap().reply;
                assert_eq!((reply.status, reply.value), (Status::Refused, errno.unsigned_abs()));
            }
            assert_eq!(client.ask(&Request::Map).reply.status, Status::Done);
        })
        .await;
        until("all is closed", || descriptors(&session) <= before).await;
    });
}

#[test]
fn after_a_workers_death_ports_and_memory_are_as_before() {
    on_one_thread(async {
        let (mut session, agent) = ready().await;
        let client = session.app.clone();
        let (listener, socket, fake, page) = app(move || {
            let (listener, fake) = client.listen("0.0.0.0:18100");
            let socket = udp();
            socket.connect(client.peer((REACHABLE, 5000).into()).unwrap()).unwrap();
            (listener, socket, fake, client.map())
        })
        .await;
        agent.wants(&[18100]).await;
        session.kill_worker();
        agent.ended().await;
        // Asked while nobody is there, answered when somebody is.
        let client = session.app.clone();
        let waiting = app(move || {
            let waiting = client.reach();
            send(&waiting, &Request::Map.encode(&client.key), None).unwrap();
            waiting
        })
        .await;
        session.hears(|event| matches!(event, ProxyEvent::Restarted)).await;
        session.hears(|event| matches!(event, ProxyEvent::Waiting)).await;
        let agent = Agent::start(&session).await;
        session.hears(|event| matches!(event, ProxyEvent::Ready(_))).await;
        agent.wants(&[18100]).await;
        let _stream = agent.client(Protocol::Tcp, "203.0.113.9:40001", 18100);
        let client = session.app.clone();
        app(move || {
            let mut waiting = waiting;
            assert_eq!(receive(&mut waiting).unwrap().reply.status, Status::Done);
            let (_, from) = listener.accept().unwrap();
            assert_eq!(page.behind(from), Some("203.0.113.9:40001".parse().unwrap()));
            assert_eq!(page.fake(Transport::Tcp, 18100), fake);
            socket.send(b"still there").unwrap();
            assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 11);
            let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            assert_eq!(client.bind(&taken, "0.0.0.0:18100").status, Status::Refused);
            let remote = SocketAddr::from((REACHABLE, 5000));
            assert_eq!(page.behind(client.peer(remote).unwrap()), Some(remote));
        })
        .await;
    });
}

#[test]
fn it_leaves_with_who_started_it_and_leaves_nothing() {
    on_one_thread(async {
        let (mut session, _agent) = ready().await;
        let client = session.app.clone();
        let (_listener, _) = app(move || client.listen("0.0.0.0:18101")).await;
        let (worker, since) = (session.worker(), Instant::now());
        drop(session.stdin.take());
        assert!(session.init.wait().await.unwrap().success());
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        assert!(kill(worker, None).is_err(), "the worker is gone");
        let name = format!("@{}", session.app.socket);
        assert!(!fs::read_to_string("/proc/net/unix").unwrap().contains(&name));
        assert!(std::net::TcpStream::connect("127.0.0.1:18101").is_err(), "the door is shut");
    });
}

#[test]
fn a_worker_leaves_when_its_parent_is_killed() {
    on_one_thread(async {
        let (mut session, _agent) = ready().await;
        let worker = session.worker();
        session.init.kill().await.unwrap();
        until("the worker is gone", || kill(worker, None).is_err()).await;
    });
}

#[test]
fn a_user_without_any_right_has_a_session() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: every other test shows it");
    }
    on_one_thread(async {
        let mut session = crate::session::Session::start_as_nobody().await;
        let agent = Agent::start(&session).await;
        session.hears(|event| matches!(event, ProxyEvent::Ready(_))).await;
        let status = fs::read_to_string(format!("/proc/{}/status", session.worker())).unwrap();
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
        let client = session.app.clone();
        let (listener, _) = app(move || client.listen("0.0.0.0:80")).await;
        agent.wants(&[80]).await;
        let _stream = agent.client(Protocol::Tcp, "203.0.113.9:40000", 80);
        let client = session.app.clone();
        app(move || {
            let (_, from) = listener.accept().unwrap();
            assert_eq!(client.map().behind(from), Some("203.0.113.9:40000".parse().unwrap()));
            let refused = client.connect((REFUSING, 111).into()).unwrap_err();
            assert_eq!(crate::client::named(refused), "refused");
            let to = client.peer((REACHABLE, 5000).into()).unwrap();
            let socket = udp();
            socket.send_to(b"x", to).unwrap();
            assert_eq!(socket.recv_from(&mut [0; 8]).unwrap(), (1, to));
        })
        .await;
    });
}

#[test]
fn a_worker_that_hangs_is_ended() {
    on_one_thread(async {
        let (mut session, _agent) = ready().await;
        let worker = session.worker();
        kill(worker, nix::sys::signal::Signal::SIGSTOP).unwrap();
        drop(session.stdin.take());
        session.init.wait().await.unwrap();
        until("the worker is gone", || {
            let stat = fs::read_to_string(format!("/proc/{worker}/stat"));
            stat.is_err() || stat.unwrap().contains(") Z ")
        })
        .await;
    });
}
