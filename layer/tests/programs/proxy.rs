//! A proxy that knows a small world: what the layer asks is answered as the real one would, and the
//! far ends are played here.
//!
//! ```text
//!  10.9.0.1, 2001:db8::1   answer a "ping" with "pong"; datagrams come back
//!  10.9.0.2                is unreachable
//!  10.9.0.3                refuses
//!  10.9.0.9                is none of ours
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use mirrord_layer::sys::{self, Fd};
use mirrord_protocol::layer::{
    KEY_LEN, REQUEST_LEN, Reply, Request, Slot, Status, Transport, encode_address, page,
};
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use nix::sys::socket::{getsockopt, setsockopt};
use socket2::{Domain, Socket, Type};

/// The remote port where whatever is decided is decided late.
pub const SLOW: u16 = 81;
const PATIENCE: Duration = Duration::from_secs(10);
const KEY: [u8; KEY_LEN] = *b"0123456789abcdef";
const KEY_TEXT: &str = "30313233343536373839616263646566";

/// Serves until the test ends.
pub struct Proxy {
    name: String,
    world: Arc<World>,
}

struct World {
    memory: File,
    claims: Mutex<HashMap<(Transport, u16), u16>>,
    listening: Mutex<Vec<u16>>,
    listens: Condvar,
    slots: AtomicU32,
    /// Its queue is full.
    sink: Socket,
    _only: TcpStream,
    datagrams: u16,
}

impl Proxy {
    /// A new one.
    pub fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mirrord-layer-test-{}-{count}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("a listener");
        let world = Arc::new(World::new());
        let serving = world.clone();
        thread::spawn(move || {
            while let Ok((peer, _)) = listener.accept() {
                let world = serving.clone();
                thread::spawn(move || world.serve(peer));
            }
        });
        Self { name, world }
    }

    /// The value of the layer's variable.
    pub fn variable(&self) -> String {
        format!("{}:{KEY_TEXT}", self.name)
    }

    /// Leaves programs of these names alone.
    pub fn skip(&self, name: &str) {
        self.world.write(page::SKIPPED, format!("{name}\0\0").as_bytes());
    }

    /// Connects to the app's port, once it listens, as somebody in the target's network.
    pub fn client(&self, port: u16, remote: &str, local: &str) -> TcpStream {
        let fake = self.world.wait_for(port);
        let slot = self.world.slot(Some(address(remote)), Some(address(local)));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((slot.remote(), 0)).into()).expect("bound");
        socket.connect(&localhost(fake).into()).expect("connected");
        socket.into()
    }

    /// Sends a datagram to the app's port as somebody, and waits for the answer.
    pub fn ask(&self, port: u16, remote: &str, text: &str) -> String {
        let claims = self.world.claims.lock().expect("not poisoned");
        let fake = claims[&(Transport::Udp, port)];
        drop(claims);
        let slot = self.world.slot(Some(address(remote)), None);
        self.world.index(address(remote), slot);
        let socket = UdpSocket::from(self.world.datagram_socket(slot));
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        socket.send_to(text.as_bytes(), localhost(fake)).expect("sent");
        let mut bytes = [0; 64];
        let (len, _) = socket.recv_from(&mut bytes).expect("an answer");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn shared(kind: Type) -> Socket {
    let socket = Socket::new(Domain::IPV4, kind, None).expect("a socket");
    socket.set_reuse_address(true).expect("set");
    socket.set_reuse_port(true).expect("set");
    socket
}

fn port(socket: &Socket) -> u16 {
    let address = socket.local_addr().expect("bound");
    address.as_socket().expect("an address").port()
}

impl World {
    fn new() -> Self {
        let sink = shared(Type::STREAM);
        sink.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).expect("bound");
        sink.listen(0).expect("listens");
        let only = TcpStream::connect(localhost(port(&sink))).expect("connected");
        let datagrams = shared(Type::DGRAM);
        datagrams.bind(&SocketAddr::from((Slot(0).remote(), 0)).into()).expect("bound");
        let memory = tempfile::tempfile().expect("a file");
        memory.set_len(page::LEN as u64).expect("room");
        let world = Self {
            memory,
            claims: Mutex::default(),
            listening: Mutex::default(),
            listens: Condvar::new(),
            slots: AtomicU32::new(1),
            sink,
            _only: only,
            datagrams: port(&datagrams),
        };
        world.write(0, &page::MAGIC.to_le_bytes());
        world.write(page::DATAGRAMS, &world.datagrams.to_le_bytes());
        world
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.memory.write_all_at(bytes, offset as u64).expect("written");
    }

    fn slot(&self, remote: Option<SocketAddr>, local: Option<SocketAddr>) -> Slot {
        let slot = Slot(self.slots.fetch_add(1, Ordering::Relaxed));
        self.write(page::remote(slot), &encode_address(remote));
        self.write(page::local(slot), &encode_address(local));
        slot
    }

    fn index(&self, remote: SocketAddr, slot: Slot) {
        self.write(page::index(page::hash(remote)), &(slot.0 + 1).to_le_bytes());
    }

    fn wait_for(&self, port: u16) -> u16 {
        let listening = self.listening.lock().expect("not poisoned");
        let found =
            || self.claims.lock().expect("not poisoned").get(&(Transport::Tcp, port)).copied();
        let (listening, _) = self
            .listens
            .wait_timeout_while(listening, PATIENCE, |all| {
                found().is_none_or(|fake| !all.contains(&fake))
            })
            .expect("not poisoned");
        let fake = found().expect("bound");
        assert!(listening.contains(&fake), "it does not listen");
        fake
    }

    fn serve(&self, peer: UnixStream) {
        let peer = Fd::adopt(peer.into_raw_fd() as usize).expect("a descriptor");
        let mut bytes = [0; REQUEST_LEN];
        let Ok((REQUEST_LEN, passed)) = sys::receive(&peer, &mut bytes) else { return };
        let (key, request) = Request::decode(&bytes).expect("a request");
        assert_eq!(key, KEY);
        let done = Reply::new(Status::Done, 0);
        let reply = match request {
            Request::Map => {
                let file = Some(self.memory.as_raw_fd());
                sys::send_with(&peer, &done.encode(), file).expect("sent");
                return;
            }
            Request::Bind { transport, address, shared } => {
                let passed = passed.expect("a socket");
                // SAFETY: it is ours.
                let socket = unsafe { OwnedFd::from_raw_fd(passed.into_number()) };
                self.bind(&Socket::from(socket), transport, address, shared)
            }
            Request::Listen { fake } => {
                self.listening.lock().expect("not poisoned").push(fake);
                self.listens.notify_all();
                done
            }
            Request::Dial { remote } => {
                let passed = passed.expect("a socket");
                // SAFETY: it is ours.
                let socket = unsafe { OwnedFd::from_raw_fd(passed.into_number()) };
                return self.dial(&peer, socket.into(), remote);
            }
            Request::Peer { remote } => self.peer(remote),
            _ => Reply::new(Status::Direct, 0),
        };
        let _ = sys::send_with(&peer, &reply.encode(), None);
    }

    fn bind(
        &self,
        socket: &Socket,
        transport: Transport,
        asked: SocketAddr,
        shared: bool,
    ) -> Reply {
        let mut claims = self.claims.lock().expect("not poisoned");
        let is_v6 = socket.domain().expect("a socket") == Domain::IPV6;
        let at = |port| {
            let ip = Ipv4Addr::LOCALHOST;
            let ip = if is_v6 { IpAddr::V6(ip.to_ipv6_mapped()) } else { IpAddr::V4(ip) };
            SocketAddr::new(ip, port)
        };
        if is_v6 {
            socket.set_only_v6(false).expect("set");
        }
        let old = claims.get(&(transport, asked.port())).copied();
        let kind = if transport == Transport::Tcp { Type::STREAM } else { Type::DGRAM };
        let lives = |port| {
            let trial = Socket::new(Domain::IPV4, kind, None).expect("a socket");
            trial.bind(&localhost(port).into()).is_err()
        };
        let wanted = match old {
            Some(old) if shared => old,
            Some(old) if lives(old) => return Reply::new(Status::Refused, libc::EADDRINUSE as u32),
            _ => 0,
        };
        if let Err(error) = socket.bind(&at(wanted).into()) {
            return Reply::new(Status::Refused, error.raw_os_error().expect("an errno") as u32);
        }
        let fake = port(socket);
        claims.insert((transport, asked.port()), fake);
        self.write(page::asked(transport, fake), &encode_address(Some(asked)));
        self.write(page::fake(transport, asked.port()), &fake.to_le_bytes());
        Reply::new(Status::Done, u32::from(fake))
    }

    fn dial(&self, peer: &Fd, socket: Socket, remote: SocketAddr) {
        if remote.ip() == Ipv4Addr::new(10, 9, 0, 9) {
            let _ = sys::send_with(peer, &Reply::new(Status::Direct, 0).encode(), None);
            return;
        }
        let slot = self.slot(Some(remote), Some(address("10.9.0.100:0")));
        let app = seat(&socket, slot);
        drop(socket);
        let reply = Reply { port: port(&self.sink), ..Reply::new(Status::Done, slot.0) };
        sys::send_with(peer, &reply.encode(), None).expect("sent");
        // A slow one answers when a program on a busy machine has asked again.
        thread::sleep(Duration::from_millis(if remote.port() == SLOW { 500 } else { 20 }));
        let outcome = match remote.ip().to_string().as_str() {
            "10.9.0.1" | "2001:db8::1" => page::CONNECTED,
            "10.9.0.3" => page::FAILED + libc::ECONNREFUSED as u32,
            _ => page::FAILED + libc::EHOSTUNREACH as u32,
        };
        self.write(page::outcome(slot), &outcome.to_le_bytes());
        let mut connection = self.meet(slot, app);
        if outcome == page::CONNECTED {
            let mut bytes = [0; 4];
            let _ = connection.read_exact(&mut bytes);
            let _ = connection.write_all(b"pong");
        } else {
            Socket::from(connection).set_linger(Some(Duration::ZERO)).expect("set");
        }
    }

    /// A simultaneous open.
    fn meet(&self, slot: Slot, app: SocketAddr) -> TcpStream {
        for _ in 0..1000 {
            let socket = shared(Type::STREAM);
            socket.bind_device(Some(b"lo")).expect("bound");
            let own = SocketAddr::from((slot.remote(), port(&self.sink)));
            socket.bind(&own.into()).expect("bound");
            match socket.connect(&app.into()) {
                Ok(()) => return socket.into(),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{app}"),
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("{app} does not connect");
    }

    fn datagram_socket(&self, slot: Slot) -> Socket {
        let socket = shared(Type::DGRAM);
        socket.bind(&SocketAddr::from((slot.remote(), self.datagrams)).into()).expect("bound");
        socket
    }

    fn peer(&self, remote: SocketAddr) -> Reply {
        let slot = self.slot(Some(remote), Some(address("10.9.0.100:0")));
        let socket = UdpSocket::from(self.datagram_socket(slot));
        thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok((len, app)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(&bytes[..len], app);
            }
        });
        self.index(remote, slot);
        Reply { port: self.datagrams, ..Reply::new(Status::Done, slot.0) }
    }
}

/// Where a socket connects from: its slot's local address, unless it is bound.
fn seat(socket: &Socket, slot: Slot) -> SocketAddr {
    let own = || socket.local_addr().expect("an address").as_socket().expect("of IP");
    let bound = own();
    let is_free = bound.port() == 0 || Slot::of_local(bound.ip()).is_some();
    if is_free {
        let ip = IpAddr::V4(slot.local());
        let ip = if bound.is_ipv6() { slot.local().to_ipv6_mapped().into() } else { ip };
        if bound.is_ipv6() {
            socket.set_only_v6(false).expect("set");
        }
        let is_late = getsockopt(socket, IpBindAddressNoPort).expect("an option");
        setsockopt(socket, IpBindAddressNoPort, &false).expect("set");
        socket.bind(&SocketAddr::new(ip, 0).into()).expect("bound");
        setsockopt(socket, IpBindAddressNoPort, &is_late).expect("set");
    }
    let own = own();
    let ip = own.ip().to_canonical();
    let ip = if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip };
    SocketAddr::new(ip, own.port())
}
