//! Pipes that break at any byte, between two real ends whose streams go on.

#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod common;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::time::Duration;

use mirrord_protocol::Token;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Frame, Open, OrigDst};
use mirrord_tunnel::{
    Events, Greeting, Socket, Stream, Tunnel, TunnelError, UnixPipe, accept, connect,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{JoinHandle, spawn_local};

use common::{Agent, Proxy, agent, dial, on_one_thread, pattern};

/// What lies between the ends: it carries bytes for a while, and what is under way then is lost.
struct Road {
    /// Bytes of either direction after which the next pipe breaks; none: it does not.
    budgets: RefCell<Vec<u64>>,
    cuts: Cell<usize>,
}

impl Road {
    fn new(budgets: Vec<u64>) -> Rc<Self> {
        Rc::new(Self { budgets: RefCell::new(budgets), cuts: Cell::new(0) })
    }

    /// The two ends of the next pipe.
    fn pipe(self: &Rc<Self>) -> (UnixPipe, UnixPipe) {
        let (near, near_here) = StdUnixStream::pair().unwrap();
        let (far_here, far) = StdUnixStream::pair().unwrap();
        let (road, budget) = (self.clone(), self.budgets.borrow_mut().pop());
        spawn_local(async move {
            let here = [near_here, far_here].map(|socket| {
                socket.set_nonblocking(true).unwrap();
                UnixStream::from_std(socket).unwrap()
            });
            carry(here, budget).await;
            road.cuts.set(road.cuts.get() + 1);
        });
        (UnixPipe::new(near).unwrap(), UnixPipe::new(far).unwrap())
    }
}

async fn carry([mut near, mut far]: [UnixStream; 2], budget: Option<u64>) {
    let left = Cell::new(budget);
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    let up = some_bytes(&mut from_near, &mut to_far, &left);
    let down = some_bytes(&mut from_far, &mut to_near, &left);
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}

async fn some_bytes(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    left: &Cell<Option<u64>>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = from.read(&mut buffer).await?;
        let carried = match left.get() {
            None => len,
            Some(left) => len.min(usize::try_from(left).unwrap()),
        };
        left.set(left.get().map(|left| left - carried as u64));
        to.write_all(&buffer[..carried]).await?;
        if len == 0 || left.get() == Some(0) {
            return Ok(());
        }
    }
}

/// An agent that keeps its tunnel from pipe to pipe.
#[derive(Default)]
struct Keeper {
    tunnel: RefCell<Option<Tunnel>>,
    driver: RefCell<Option<JoinHandle<()>>>,
}

impl Keeper {
    async fn serve(&self, pipe: UnixPipe) -> Result<(), TunnelError> {
        let Ok((mut socket, ())) = accept(pipe, &Token::new("t"), |_| Ok(())).await else {
            return Err(TunnelError::Cut);
        };
        let greeting = Greeting::hear(&mut socket).await?;
        let old = self.driver.borrow_mut().take();
        if let Some(driver) = old {
            driver.abort();
            let _ = driver.await;
        }
        let known = self.tunnel.borrow().clone().filter(|known| known.id() == greeting.tunnel);
        let tunnel = match (known, greeting.received) {
            (Some(tunnel), Some(_)) => {
                tunnel.answer(&mut socket, &greeting).await?;
                tunnel
            }
            _ => Tunnel::of(&greeting),
        };
        self.tunnel.replace(Some(tunnel.clone()));
        let driver = spawn_local(async move { drop(tunnel.drive(socket, &Agent).await) });
        self.driver.replace(Some(driver));
        Ok(())
    }
}

async fn let_in(pipe: UnixPipe) -> Socket<UnixPipe> {
    connect(pipe, &Token::new("t"), None).await.unwrap()
}

/// Drives a proxy's tunnel over pipe after pipe.
async fn drive(tunnel: Tunnel, road: Rc<Road>, keeper: Rc<Keeper>, events: &dyn Events) {
    loop {
        let (near, far) = road.pipe();
        let serving = keeper.clone();
        spawn_local(async move { drop(serving.serve(far).await) });
        let Ok(mut socket) = connect(near, &Token::new("t"), None).await else { continue };
        match tunnel.greet(&mut socket).await {
            Ok(()) => {}
            Err(error) if error.is_cut() => continue,
            Err(error) => panic!("{error}"),
        }
        let end = tunnel.drive(socket, events).await;
        assert!(end.is_cut(), "{end}");
    }
}

/// A number that looks random, and is the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
        (self.0 >> 20) % limit
    }
}

async fn echo_service() -> std::net::SocketAddr {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = service.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((mut socket, _)) = service.accept().await {
            spawn_local(async move {
                let (mut from, mut to) = socket.split();
                tokio::io::copy(&mut from, &mut to).await?;
                to.shutdown().await
            });
        }
    });
    address
}

/// Sends bytes and takes as many back: they are the same.
async fn echoes(app: TcpStream, sent: &[u8]) {
    let (mut from, mut to) = app.into_split();
    let mut got = Vec::new();
    let (sending, getting) = tokio::join!(
        async {
            to.write_all(sent).await?;
            to.shutdown().await
        },
        from.read_to_end(&mut got),
    );
    sending.unwrap();
    getting.unwrap();
    assert!(got == sent, "{} bytes of {} came back, or others", got.len(), sent.len());
}

#[test]
fn a_hundred_cuts_at_any_byte_lose_and_double_nothing() {
    on_one_thread(async {
        let sent = pattern(48 << 20);
        let mut dice = Dice(7);
        // Some break within the first words.
        let budgets = (0..100).map(|cut| match cut % 5 {
            0 => 1 + dice.below(700),
            _ => 1 + dice.below(1_600_000),
        });
        let road = Road::new(budgets.collect());
        let tunnel = Tunnel::of_proxy();
        spawn_local(drive(tunnel.clone(), road.clone(), Rc::default(), &Proxy));
        let service = echo_service().await;
        let large = dial(&tunnel, service).await;
        let short = async {
            for turn in 0.. {
                echoes(dial(&tunnel, service).await, &sent[..turn % 5000]).await;
                if road.cuts.get() >= 100 {
                    return turn;
                }
            }
            0
        };
        let ((), turns) = tokio::join!(echoes(large, &sent), short);
        assert!(turns > 10, "only {turns} short connections");
        assert_eq!(road.cuts.get(), 100);
    });
}

#[test]
fn what_waits_for_a_pipe_is_bounded_and_arrives_later() {
    on_one_thread(async {
        let (road, keeper) = (Road::new(vec![200_000]), Rc::<Keeper>::default());
        let tunnel = Tunnel::of_proxy();
        let (near, far) = road.pipe();
        let serving = keeper.clone();
        spawn_local(async move { serving.serve(far).await.unwrap() });
        let mut socket = let_in(near).await;
        tunnel.greet(&mut socket).await.unwrap();
        let driven = tunnel.clone();
        let cut = spawn_local(async move { driven.drive(socket, &Proxy).await });
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut app = dial(&tunnel, service.local_addr().unwrap()).await;
        let mut service = service.accept().await.unwrap().0;
        let (chunk, mut written) = (pattern(100_003), 0);
        while let Ok(len) =
            tokio::time::timeout(Duration::from_millis(300), app.write(&chunk[written % 99_991..]))
                .await
        {
            written += len.unwrap();
            assert!(written < 64 << 20, "nothing holds the app back");
        }
        assert!(cut.await.unwrap().is_cut());
        assert_eq!(tunnel.streams(), 1);
        spawn_local(drive(tunnel.clone(), road, keeper, &Proxy));
        app.shutdown().await.unwrap();
        let mut got = Vec::new();
        service.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), written);
    });
}

#[test]
fn datagrams_keep_their_stream_over_a_cut() {
    on_one_thread(async {
        let tunnel = Tunnel::of_proxy();
        let (road, keeper) = (Road::new(vec![3000]), Rc::<Keeper>::default());
        spawn_local(drive(tunnel.clone(), road.clone(), keeper.clone(), &Proxy));
        let stream = tunnel.open(Open::Connect(Protocol::Tcp, OrigDst(echo_service().await)));
        stream.connected().await.unwrap();
        while road.cuts.get() == 0 {
            assert!(stream.send_datagram(&[7; 100]), "there is room for a few");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!stream.is_broken());
    });
}

#[test]
fn an_agent_that_does_not_know_the_tunnel_ends_its_streams_and_takes_a_new_one() {
    on_one_thread(async {
        let (near, far) = StdUnixStream::pair().unwrap();
        let first = spawn_local(agent(UnixPipe::new(far).unwrap()));
        let mut socket = let_in(UnixPipe::new(near).unwrap()).await;
        let tunnel = Tunnel::of_proxy();
        tunnel.greet(&mut socket).await.unwrap();
        let driven = tunnel.clone();
        let cut = spawn_local(async move { driven.drive(socket, &Proxy).await });
        let service = echo_service().await;
        let mut app = dial(&tunnel, service).await;
        app.write_all(b"x").await.unwrap();
        app.read_exact(&mut [0]).await.unwrap();
        first.abort();
        assert!(cut.await.unwrap().is_cut());

        let (near, far) = StdUnixStream::pair().unwrap();
        spawn_local(async move {
            let pipe = UnixPipe::new(far).unwrap();
            let mut socket = accept(pipe, &Token::new("t"), |_| Ok(())).await.unwrap().0;
            let greeting = Greeting::hear(&mut socket).await.unwrap();
            let greeting = greeting.deny(&mut socket).await.unwrap();
            assert_eq!(greeting.received, None);
            Tunnel::of(&greeting).drive(socket, &Agent).await
        });
        let mut socket = let_in(UnixPipe::new(near).unwrap()).await;
        let end = tunnel.greet(&mut socket).await.unwrap_err();
        assert!(matches!(end, TunnelError::Forgotten), "{end}");
        assert_eq!(app.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let next = Tunnel::of_proxy();
        assert_ne!(next.id(), tunnel.id());
        next.greet(&mut socket).await.unwrap();
        let driven = next.clone();
        spawn_local(async move { driven.drive(socket, &Proxy).await });
        echoes(dial(&next, service).await, b"again").await;
    });
}

#[test]
fn who_says_that_it_is_over_is_not_waited_for() {
    on_one_thread(async {
        let (near, far) = StdUnixStream::pair().unwrap();
        let other = spawn_local(agent(UnixPipe::new(far).unwrap()));
        let mut socket = let_in(UnixPipe::new(near).unwrap()).await;
        let tunnel = Tunnel::of_proxy();
        tunnel.greet(&mut socket).await.unwrap();
        tunnel.finish();
        let end = tunnel.drive(socket, &Proxy).await;
        assert!(matches!(end, TunnelError::Closed), "{end}");
        let end = other.await.unwrap();
        assert!(matches!(end, TunnelError::Closed), "{end}");
    });
}

#[test]
fn frames_that_nobody_sent_can_not_be_acknowledged() {
    struct Silent;
    impl Events for Silent {
        fn opened(&self, _: Stream, _: Open) {}
        fn message(&self, _: Frame) -> Result<(), TunnelError> {
            Ok(())
        }
    }
    on_one_thread(async {
        for first_words in [false, true] {
            let (near, far) = StdUnixStream::pair().unwrap();
            let rogue = spawn_local(async move {
                let pipe = UnixPipe::new(far).unwrap();
                let mut socket = accept(pipe, &Token::new("t"), |_| Ok(())).await.unwrap().0;
                let greeting = Greeting::hear(&mut socket).await.unwrap();
                let tunnel = Tunnel::of(&greeting);
                if first_words {
                    let claim = Greeting { received: Some(1), ..greeting };
                    return tunnel.answer(&mut socket, &claim).await.unwrap_err();
                }
                tunnel.send(&Frame::Received(9));
                tunnel.drive(socket, &Silent).await
            });
            let mut socket = let_in(UnixPipe::new(near).unwrap()).await;
            let tunnel = Tunnel::of_proxy();
            tunnel.greet(&mut socket).await.unwrap();
            let end = match first_words {
                true => rogue.await.unwrap(),
                false => tunnel.drive(socket, &Silent).await,
            };
            assert!(matches!(end, TunnelError::Violation(_)), "{end}");
        }
    });
}
