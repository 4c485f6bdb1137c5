//! More connections than this process takes for itself: alone, since the limit is the process's.

#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod common;

use std::time::Duration;

use mirrord_protocol::Token;
use mirrord_tunnel::{Tunnel, UnixPipe, connect};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use common::{Proxy, agent, dial, on_one_thread, pattern};

#[test]
fn of_too_many_connections_the_next_ones_are_relayed() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    on_one_thread(async move {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        spawn_local(agent(UnixPipe::new(far).unwrap()));
        let near = UnixPipe::new(near).unwrap().taking();
        let mut socket = connect(near, &Token::new("t"), None).await.unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 80, hard).unwrap();
        let tunnel = Tunnel::of_proxy();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        tunnel.greet(&mut socket).await.unwrap();
        let driven = tunnel.clone();
        spawn_local(async move { driven.drive(socket, &Proxy).await });
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut held = Vec::new();
        for _ in 0..30 {
            let mut app = dial(&tunnel, service.local_addr().unwrap()).await;
            let mut service = service.accept().await.unwrap().0;
            app.write_all(&pattern(1000)).await.unwrap();
            service.read_exact(&mut [0; 1000]).await.unwrap();
            held.push((app, service));
        }
        assert!((8..=10).contains(&tunnel.streams()), "{}", tunnel.streams());
        held.clear();
        while tunnel.streams() > 0 || !tunnel.is_delivered() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut app = dial(&tunnel, service.local_addr().unwrap()).await;
        let mut service = service.accept().await.unwrap().0;
        app.write_all(b"x").await.unwrap();
        service.read_exact(&mut [0]).await.unwrap();
        assert_eq!(tunnel.streams(), 0, "there is room again");
    });
}
