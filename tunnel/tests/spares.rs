//! Sockets that an agent gives away before they are connected.

#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mirrord_protocol::Token;
use mirrord_protocol::frame::{Errno, Frame, Open};
use mirrord_tunnel::{
    Answers, Events, Greeting, OpenError, Stream, Tunnel, TunnelError, UnixPipe, accept, connect,
};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_local};

use common::{Agent, Proxy};

/// One test counts what this process has open.
static ALONE: Mutex<()> = Mutex::new(());

fn on_one_thread(test: impl Future<Output = ()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    common::on_one_thread(test);
}

/// An agent that gives `share` sockets for each that is wanted.
struct Giver {
    tunnel: RefCell<Option<Tunnel>>,
    share: usize,
    opened: Cell<usize>,
    asked: Cell<usize>,
}

impl Events for Giver {
    fn opened(&self, stream: Stream, open: Open) {
        self.opened.set(self.opened.get() + 1);
        Agent.opened(stream, open);
    }

    fn message(&self, frame: Frame) -> Result<(), TunnelError> {
        let Frame::Want { v6, count } = frame else { return Err(TunnelError::Unexpected) };
        self.asked.set(self.asked.get() + 1);
        for _ in 0..usize::from(count) * self.share {
            let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
            let socket = Socket::new(domain, Type::STREAM.nonblocking(), None).unwrap();
            self.tunnel.borrow().as_ref().unwrap().give(v6, socket.into());
        }
        Ok(())
    }
}

/// The proxy's end, and the agent beside it.
async fn pair(share: usize, takes: bool) -> (Tunnel, Rc<Giver>) {
    let (tunnel, giver, _) = cuttable_pair(share, takes).await;
    (tunnel, giver)
}

/// The same, with what the agent runs in.
async fn cuttable_pair(share: usize, takes: bool) -> (Tunnel, Rc<Giver>, AbortHandle) {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let (near, far) = (UnixPipe::new(near).unwrap(), UnixPipe::new(far).unwrap());
    let giver = Rc::new(Giver {
        tunnel: RefCell::default(),
        share,
        opened: Cell::new(0),
        asked: Cell::new(0),
    });
    let agent = giver.clone();
    let running = spawn_local(async move {
        let mut socket = accept(far, &Token::new("t"), |_| Ok(())).await.unwrap().0;
        let tunnel = Tunnel::of(&Greeting::hear(&mut socket).await.unwrap());
        agent.tunnel.replace(Some(tunnel.clone()));
        tunnel.drive(socket, &*agent).await
    });
    let near = if takes { near.taking() } else { near };
    let mut socket = connect(near, &Token::new("t"), None).await.unwrap();
    let tunnel = Tunnel::of_proxy();
    tunnel.greet(&mut socket).await.unwrap();
    let driven = tunnel.clone();
    spawn_local(async move { driven.drive(socket, &Proxy).await });
    (tunnel, giver, running.abort_handle())
}

async fn echo_service(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            spawn_local(async move {
                let mut bytes = [0; 5];
                socket.read_exact(&mut bytes).await.unwrap();
                socket.write_all(&bytes).await.unwrap();
            });
        }
    });
    address
}

/// Whether an app that connects through the tunnel hears its echo.
async fn echoes(tunnel: &Tunnel, to: SocketAddr) -> Result<(), OpenError> {
    let far = tunnel.connect(to).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let near = listener.accept().await.unwrap().0;
    let relaying = spawn_local(far.relay(near, Answers::Sent));
    app.write_all(b"hello").await.unwrap();
    app.shutdown().await.unwrap();
    let mut back = String::new();
    app.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "hello");
    relaying.await.unwrap();
    Ok(())
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[test]
fn what_was_given_is_connected_without_the_agent() {
    on_one_thread(async {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (tunnel, giver) = pair(1, true).await;
            let service = echo_service(address).await;
            echoes(&tunnel, service).await.unwrap();
            pause().await;
            for _ in 0..200 {
                echoes(&tunnel, service).await.unwrap();
            }
            assert!(giver.opened.get() <= 2, "the agent connected {} times", giver.opened.get());
            assert!((200 / 32..200 / 8).contains(&giver.asked.get()), "{}", giver.asked.get());
            assert_eq!(tunnel.streams(), 0);
        }
    });
}

#[test]
fn whoever_is_not_reached_is_told_of_as_the_kernel_tells() {
    on_one_thread(async {
        let (tunnel, giver) = pair(1, true).await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        echoes(&tunnel, echo_service("127.0.0.1:0").await).await.unwrap();
        pause().await;
        for (to, errno) in [
            (closed, rustix::io::Errno::CONNREFUSED),
            ("255.255.255.255:9".parse().unwrap(), rustix::io::Errno::NETUNREACH),
        ] {
            let refused = echoes(&tunnel, to).await.unwrap_err();
            assert_eq!(refused, OpenError::Refused(Errno(errno.raw_os_error())), "{to}");
        }
        assert_eq!(giver.opened.get(), 1, "by the kernel, not the agent");
    });
}

#[test]
fn an_agent_that_gives_nothing_connects_itself_and_is_not_asked_each_time() {
    on_one_thread(async {
        let (tunnel, giver) = pair(0, true).await;
        let service = echo_service("127.0.0.1:0").await;
        for _ in 0..20 {
            echoes(&tunnel, service).await.unwrap();
        }
        assert_eq!(giver.opened.get(), 20);
        assert!(giver.asked.get() <= 2, "asked {} times", giver.asked.get());
    });
}

#[test]
fn where_no_socket_can_come_none_is_asked_for() {
    on_one_thread(async {
        let (tunnel, giver) = pair(1, false).await;
        let service = echo_service("127.0.0.1:0").await;
        for _ in 0..5 {
            echoes(&tunnel, service).await.unwrap();
        }
        assert_eq!((giver.opened.get(), giver.asked.get()), (5, 0));
    });
}

#[test]
fn while_there_is_no_pipe_whoever_connects_waits() {
    on_one_thread(async {
        let (tunnel, giver, running) = cuttable_pair(1, true).await;
        let service = echo_service("127.0.0.1:0").await;
        echoes(&tunnel, service).await.unwrap();
        pause().await;
        running.abort();
        pause().await;
        let connecting = tokio::time::timeout(Duration::from_millis(200), tunnel.connect(service));
        assert!(connecting.await.is_err(), "it does not know of what it connects beside");
        assert_eq!(giver.opened.get(), 1);
    });
}

#[test]
fn a_connection_under_way_ends_with_the_tunnel() {
    on_one_thread(async {
        let (tunnel, _giver) = pair(1, true).await;
        echoes(&tunnel, echo_service("127.0.0.1:0").await).await.unwrap();
        pause().await;
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let silent = full.local_addr().unwrap().as_socket().unwrap();
        let _only = TcpStream::connect(silent).await.unwrap();
        let ending = tunnel.clone();
        spawn_local(async move {
            pause().await;
            ending.end();
        });
        assert_eq!(tunnel.connect(silent).await.map(drop), Err(OpenError::Reset));
    });
}

#[test]
fn more_than_was_asked_for_is_not_kept_and_nothing_after_the_end() {
    on_one_thread(async {
        let (tunnel, giver) = pair(4, true).await;
        let service = echo_service("127.0.0.1:0").await;
        let before = descriptors();
        echoes(&tunnel, service).await.unwrap();
        pause().await;
        assert_eq!(giver.asked.get(), 1);
        let kept = descriptors() - before;
        assert!((24..48).contains(&kept), "{kept} are kept of 128");
        tunnel.end();
        pause().await;
        assert!(descriptors() <= before, "{} are left", descriptors() - before);
        assert_eq!(echoes(&tunnel, service).await, Err(OpenError::Reset));
    });
}
