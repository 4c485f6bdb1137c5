//! Two ends of a tunnel as the tests of this crate have them.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use mirrord_protocol::Token;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Errno, Frame, Open, OrigDst};
use mirrord_tunnel::{Answers, Events, Greeting, Stream, Tunnel, TunnelError, UnixPipe, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

/// An agent that does nothing but connect, and give nothing.
pub struct Agent;

impl Events for Agent {
    fn opened(&self, stream: Stream, open: Open) {
        let Open::Connect(Protocol::Tcp, OrigDst(to)) = open else {
            return stream.refuse(Errno(71));
        };
        spawn_local(async move {
            match TcpStream::connect(to).await {
                Ok(socket) => stream.lead_to(socket.into_std().unwrap()).await,
                Err(error) => stream.refuse(Errno(error.raw_os_error().unwrap())),
            }
        });
    }

    fn message(&self, _: Frame) -> Result<(), TunnelError> {
        Err(TunnelError::Unexpected)
    }
}

/// A proxy of which nothing is asked.
pub struct Proxy;

impl Events for Proxy {
    fn opened(&self, _: Stream, _: Open) {}

    fn message(&self, _: Frame) -> Result<(), TunnelError> {
        Err(TunnelError::Unexpected)
    }
}

/// Serves one pipe as an agent that has no tunnel yet.
pub async fn agent(pipe: UnixPipe) -> TunnelError {
    let mut socket = accept(pipe, &Token::new("t"), |_| Ok(())).await.unwrap().0;
    let greeting = Greeting::hear(&mut socket).await.unwrap();
    Tunnel::of(&greeting).drive(socket, &Agent).await
}

/// A connection of an app, relayed to `to`.
pub async fn dial(tunnel: &Tunnel, to: SocketAddr) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    rustix::net::sockopt::set_socket_oobinline(&socket, true).unwrap();
    let stream = tunnel.open(Open::Connect(Protocol::Tcp, OrigDst(to)));
    spawn_local(async move {
        match stream.connected().await {
            Ok(()) => drop(stream.relay(socket, Answers::Sent).await),
            Err(_) => socket.set_zero_linger().unwrap(),
        }
    });
    app
}

/// Runs a test as tunnels run.
pub fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await.unwrap() };
    LocalSet::new().block_on(&runtime, limited);
}

/// So many bytes that tell their places.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}
