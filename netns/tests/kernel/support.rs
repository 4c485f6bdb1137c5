//! Namespaces, links and sockets to try things with.

use std::{
    env,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use mirrord_netns::{
    Datagram, MARK_TO_APP, Plan, Plane, SIDECAR_SYSCTLS, SteeredUdp, Subnet,
    calls::{Call, Heard},
    plane::PlaneError,
    privileges::{Capability, has},
    spoof::PacketSender,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
};
use socket2::{Domain, Socket, Type};

/// The target's address.
pub const TARGET: &str = "10.244.1.5";
/// The sidecar's own address, and its subnet's prefix.
pub const OWN: &str = "172.30.0.9";
/// The gateway of the sidecar's network, in the other namespace.
pub const GATEWAY: &str = "172.30.0.1";
/// An address behind the gateway, in the other namespace.
pub const BEYOND: &str = "198.51.100.7";

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a namespace of its own.
pub struct Outside {
    jobs: mpsc::Sender<Job>,
}

impl Outside {
    /// Runs something in that namespace.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tx, rx) = mpsc::channel();
        self.jobs.send(Box::new(move || tx.send(job()).unwrap())).unwrap();
        rx.recv().expect("the job failed")
    }
}

/// Runs a test in a fresh namespace with a working loopback device.
pub fn isolated(test: impl FnOnce() + Send) {
    if !has(Capability::SysAdmin) || !has(Capability::Bpf) {
        assert!(env::var_os("CI").is_none(), "CI must run these tests as root");
        eprintln!("SKIPPED: needs root");
        return;
    }
    let joined = thread::scope(|scope| {
        let body = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            test();
        };
        scope.spawn(body).join()
    });
    if let Err(panic) = joined {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a test in a namespace that looks like the sidecar's: `eth0` with a gateway.
pub fn in_sidecar(test: impl FnOnce(&Outside) + Send) {
    isolated(|| {
        for (name, value) in SIDECAR_SYSCTLS {
            set(name, value);
        }
        let outside = link();
        test(&outside);
    });
}

/// Makes `eth0` here and its other end in another namespace.
pub fn link() -> Outside {
    let (jobs, rx) = mpsc::channel::<Job>();
    let (tid_tx, tid_rx) = mpsc::channel();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tid_tx.send(nix::unistd::gettid()).unwrap();
        rx.into_iter().for_each(|job| job());
    });
    let outside = Outside { jobs };
    let tid = tid_rx.recv().unwrap();
    ip(&format!("link add eth0 type veth peer name peer0 netns {tid}"));
    ip(&format!("addr add {OWN}/24 dev eth0"));
    ip("link set eth0 up");
    outside.run(|| {
        ip("link set lo up");
        ip(&format!("addr add {GATEWAY}/24 dev peer0"));
        ip(&format!("addr add {BEYOND}/32 dev lo"));
        ip("link set peer0 up");
    });
    ip(&format!("route add default via {GATEWAY}"));
    outside
}

/// Writes a namespaced setting.
pub fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value).unwrap();
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Rules, routes and addresses of this namespace, as text.
pub fn state() -> String {
    ["rule", "-6 rule", "route show table all", "-6 route show table all", "-br addr"]
        .map(ip)
        .concat()
}

/// A plan that steers everything for [`TARGET`].
pub fn plan() -> Plan {
    Plan { identity: vec![address(TARGET)], steer_tcp: true, steer_udp: true, ..Plan::default() }
}

/// Applies a plan here.
pub fn try_apply(plan: &Plan) -> Result<Plane, PlaneError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(plan.apply())
}

/// Applies a plan here; it must work.
pub fn apply(plan: &Plan) -> Plane {
    try_apply(plan).expect("the plan")
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn socket(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(ip), port)
}

pub fn subnet(ip: &str, prefix: u8) -> Subnet {
    Subnet { address: address(ip), prefix }
}

/// Waits until something can be read: a SYN that was lost is sent again after 1 s, then after 3 s.
pub fn wait(socket: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(5000_u16)).unwrap() > 0
}

/// Accepts one connection, which then blocks.
pub fn accept(listener: &TcpListener) -> TcpStream {
    assert!(wait(listener), "nobody connected");
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

/// How the app's next connection begins.
pub fn call(plane: &Plane) -> Call {
    let calls = plane.calls().expect("TCP is steered");
    assert!(wait(calls), "nobody connected");
    match calls.next().unwrap() {
        Heard::Call(call) => call,
        other => panic!("{other:?}"),
    }
}

/// Has a connection of the app's end as if the far side had answered.
pub fn admit(plane: &mut Plane, call: &Call) {
    plane.admit(call).unwrap();
    PacketSender::open(MARK_TO_APP).unwrap().repeat(call).unwrap();
}

/// Connects to where the plane answers: the app's end and ours.
pub fn steered(plane: &mut Plane, to: SocketAddr) -> (TcpStream, TcpStream) {
    let app = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    steered_from(plane, app, to)
}

/// The same from a socket of the app's.
pub fn steered_from(plane: &mut Plane, app: Socket, to: SocketAddr) -> (TcpStream, TcpStream) {
    let app = calling(app, to);
    let call = call(plane);
    assert_eq!(call.to(), to);
    admit(plane, &call);
    let index = usize::from(to.is_ipv6());
    let ours = accept(&plane.tcp()[index]);
    plane.settle(&call).unwrap();
    assert_eq!(outcome(&app), None);
    app.set_nonblocking(false).unwrap();
    app.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    (app.into(), ours)
}

/// Begins to connect.
pub fn calling(app: Socket, to: SocketAddr) -> Socket {
    app.set_nonblocking(true).unwrap();
    let begun = app.connect(&to.into()).unwrap_err();
    assert_eq!(begun.raw_os_error(), Some(libc::EINPROGRESS));
    app
}

/// What became of a connection that was begun: an error number if it failed.
pub fn outcome(app: &Socket) -> Option<i32> {
    let mut fds = [PollFd::new(app.as_fd(), PollFlags::POLLOUT)];
    assert!(poll(&mut fds, PollTimeout::from(5000_u16)).unwrap() > 0, "it still waits");
    app.take_error().unwrap().and_then(|error| error.raw_os_error())
}

/// Receives one steered datagram.
pub fn receive(socket: &SteeredUdp) -> (Datagram, Vec<u8>) {
    assert!(wait(socket), "no datagram came");
    let mut buffer = vec![0; 65_536];
    let datagram = socket.recv(&mut buffer).unwrap();
    buffer.truncate(datagram.len);
    (datagram, buffer)
}

/// Binds a UDP socket that gives up after a while.
pub fn udp(local: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Connects, with a limit.
pub fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// Sends a word each way.
pub fn talk(mut one: &TcpStream, mut other: &TcpStream) {
    let mut word = [0; 4];
    one.write_all(b"ping").unwrap();
    other.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ping");
    other.write_all(b"pong").unwrap();
    one.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"pong");
}
