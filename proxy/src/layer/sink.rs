//! How a connection of the app is kept waiting, and completed from our side.
//!
//! The app connects to a listener whose accept queue is full, so that the kernel drops its SYN and
//! the app's socket stays in SYN_SENT. When the far end has answered, a socket of ours that is
//! bound to the very address that the app connects to connects to the app's: a simultaneous open
//! (RFC 9293, section 3.5).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream as StdTcpStream};
use std::time::Duration;

use mirrord_protocol::layer::Slot;
use mirrord_tunnel::stands;
use nix::libc;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

/// The app has so long from its answer to connecting.
const PATIENCE: Duration = Duration::from_secs(5);
/// It is mostly about to: so often it is only let run.
const SPELL: usize = 16;
/// A timer of the runtime takes no less.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// How often it is looked whether the app still waits.
const DOUBT: Duration = Duration::from_millis(500);
const LOOPBACK: &[u8] = b"lo";

/// The listener that answers nobody.
#[derive(Debug)]
pub(crate) struct Sink {
    port: u16,
    _listener: Socket,
    /// Fills the queue.
    _only: StdTcpStream,
}

impl Sink {
    /// Listens on loopback.
    pub(crate) fn open() -> io::Result<Self> {
        let listener = shared(Type::STREAM)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        listener.listen(0)?;
        let port = listener.local_addr()?.as_socket().map_or(0, |address| address.port());
        let only = StdTcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        Ok(Self { port, _listener: listener, _only: only })
    }

    /// Where the app connects to, at any slot.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Completes the connection from the app's address to a slot.
    pub(crate) async fn meet(&self, slot: Slot, app: SocketAddrV4) -> io::Result<TcpStream> {
        TcpStream::from_std(self.reach(slot, app, |_| Ok(())).await?)
    }

    /// Breaks the connection from the app's address to a slot off: the app gets a reset.
    pub(crate) async fn break_off(&self, slot: Slot, app: SocketAddrV4) -> io::Result<()> {
        // Whoever waits for it sees it stand, as shortly as can be.
        let reset = |socket: &Socket| socket.set_linger(Some(Duration::ZERO));
        self.reach(slot, app, reset).await.map(drop)
    }

    /// Refused by the kernel as long as the app has not begun to connect.
    async fn reach(
        &self,
        slot: Slot,
        app: SocketAddrV4,
        prepare: fn(&Socket) -> io::Result<()>,
    ) -> io::Result<StdTcpStream> {
        let reaching = async {
            let (mut spell, mut pause) = (0, FIRST_PAUSE);
            loop {
                match self.try_reach(slot, app, prepare).await {
                    Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {}
                    result => return result,
                }
                if spell < SPELL {
                    spell += 1;
                    std::thread::yield_now();
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        tokio::time::timeout(PATIENCE, reaching).await?
    }

    async fn try_reach(
        &self,
        slot: Slot,
        app: SocketAddrV4,
        prepare: fn(&Socket) -> io::Result<()>,
    ) -> io::Result<StdTcpStream> {
        let socket = shared(Type::STREAM.nonblocking())?;
        prepare(&socket)?;
        socket.bind(&SocketAddr::from((slot.remote(), self.port)).into())?;
        begin(&socket, app.into())?;
        stands(socket.into()).await
    }
}

/// Waits until no socket has this address any more: the app has closed the one that it wanted to
/// connect, and the kernel tells nobody.
pub(crate) async fn given_up(app: SocketAddrV4) {
    let is_free = || -> io::Result<()> {
        let trial = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
        trial.bind(&SocketAddr::from(app).into())
    };
    loop {
        tokio::time::sleep(DOUBT).await;
        if is_free().is_ok() {
            return;
        }
    }
}

/// A connection to the app that comes from a slot's remote end, begun.
pub(crate) fn connect_from(slot: Slot, app: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((slot.remote(), 0)).into())?;
    begin(&socket, app.into())?;
    Ok(socket)
}

/// The same, once it stands.
pub(crate) async fn connected_from(slot: Slot, app: SocketAddrV4) -> io::Result<TcpStream> {
    TcpStream::from_std(stands(connect_from(slot, app)?.into()).await?)
}

fn begin(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(()),
    }
}

/// A socket that shares its port with others of ours, on loopback.
pub(crate) fn shared(kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind.cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    on_loopback(&socket)?;
    Ok(socket)
}

/// Keeps other machines out. Before Linux 5.7 that needs a capability; there nothing but the
/// addresses is the fence.
pub(crate) fn on_loopback(socket: &Socket) -> io::Result<()> {
    match socket.bind_device(Some(LOOPBACK)) {
        Err(error) if error.raw_os_error() != Some(libc::EPERM) => Err(error),
        _ => Ok(()),
    }
}
