//! Targets behind the proxy of a service mesh, and clients that are spared.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::Command,
    time::{Duration, Instant},
};

use mirrord_netns::{
    Proto, Steal, TargetNet,
    capture::Capture,
    reassembly::{Event, Flows, Limits},
    target::AGENT_SOURCE,
};
use socket2::{Domain, Socket, Type};

use crate::support::*;

/// Where the mesh's proxy connects to the app from, in Istio.
const MESH_SOURCE: &str = "127.0.0.6";

/// A target at port 8080 and the proxy of its mesh, which gets what comes in from outside.
struct Meshed {
    app: TcpListener,
    proxy: TcpListener,
    /// Whether the kernel brings connections to the proxy, or we pretend.
    redirected: bool,
}

impl Meshed {
    fn new() -> Self {
        let redirect = "-t nat -A PREROUTING -p tcp -i eth0 -j REDIRECT --to-ports 15006";
        let status = Command::new("iptables").args(redirect.split(' ')).status();
        let redirected = status.is_ok_and(|status| status.success());
        if !redirected {
            eprintln!("no iptables: the proxy of the mesh gets its connections directly");
        }
        let [app, proxy] =
            ["0.0.0.0:8080", "0.0.0.0:15006"].map(|place| TcpListener::bind(place).unwrap());
        Self { app, proxy, redirected }
    }

    /// A client from outside, and the mesh's proxy's connection for it to the app.
    fn client(&self, outside: &Outside) -> (TcpStream, TcpStream) {
        let port = if self.redirected { 8080 } else { 15006 };
        let client = outside.run(move || connect(socket(OWN, port)).unwrap());
        accept(&self.proxy);
        (client, connect_from(MESH_SOURCE, socket(OWN, 8080)))
    }
}

fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let stream = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    stream.bind(&socket(source, 0).into()).unwrap();
    stream.connect_timeout(&to.into(), Duration::from_secs(2)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.into()
}

fn look() -> TargetNet {
    TargetNet::look(None).unwrap()
}

#[test]
fn a_mesh_is_known_by_what_listens() {
    isolated(|| {
        let _outside = link();
        assert!(!look().mesh);
        for port in [15001, 15006, 4143] {
            let _proxy = TcpListener::bind(("127.0.0.1", port)).unwrap();
            assert!(look().mesh, "{port}");
        }
        assert!(look().own.contains(&address(OWN)));
        assert!(look().spared.is_empty());
    });
}

#[test]
fn what_the_proxy_of_a_mesh_brings_is_taken() {
    isolated(|| {
        let outside = link();
        let mesh = Meshed::new();
        let mut steal = Steal::attach(&look()).unwrap();
        steal.add(Proto::Tcp, 8080).unwrap();
        let (_client, brought) = mesh.client(&outside);
        let ours = accept(&steal.tcp()[0]);
        assert_eq!(ours.local_addr().unwrap(), socket(OWN, 8080));
        assert_eq!(ours.peer_addr().unwrap().ip(), address(MESH_SOURCE));
        talk(&brought, &ours);
        for (source, place) in [("127.0.0.1", "127.0.0.1"), (OWN, OWN)] {
            let brought = connect_from(source, socket(place, 8080));
            talk(&brought, &accept(&steal.tcp()[0]));
        }
        drop(steal);
        let (_client, brought) = mesh.client(&outside);
        talk(&brought, &accept(&mesh.app));
    });
}

#[test]
fn the_agents_own_connections_behind_a_mesh_reach_the_target() {
    isolated(|| {
        let _outside = link();
        let mesh = Meshed::new();
        let mut steal = Steal::attach(&look()).unwrap();
        steal.add(Proto::Tcp, 8080).unwrap();
        for place in ["127.0.0.1", OWN] {
            let own = connect_from(&AGENT_SOURCE.to_string(), socket(place, 8080));
            talk(&own, &accept(&mesh.app));
        }
    });
}

#[test]
fn datagrams_that_the_target_sends_itself_are_its_own_behind_a_mesh_too() {
    isolated(|| {
        let _outside = link();
        let _mesh = Meshed::new();
        let mut steal = Steal::attach(&look()).unwrap();
        steal.add(Proto::Udp, 5353).unwrap();
        let app = udp(socket("0.0.0.0", 5353));
        udp(socket("127.0.0.1", 0)).send_to(b"question", socket("127.0.0.1", 5353)).unwrap();
        assert_eq!(app.recv_from(&mut [0; 64]).unwrap().0, 8);
    });
}

#[test]
fn a_copy_behind_a_mesh_is_of_what_its_proxy_brings() {
    isolated(|| {
        let outside = link();
        let mesh = Meshed::new();
        let mut capture = Capture::open(&look()).unwrap();
        capture.add(Proto::Tcp, 8080).unwrap();
        let (client, brought) = mesh.client(&outside);
        let app = accept(&mesh.app);
        talk(&brought, &app);
        let large = vec![7; 1 << 20];
        std::thread::scope(|scope| {
            scope.spawn(|| std::io::Write::write_all(&mut &brought, &large).unwrap());
            std::io::Read::read_exact(&mut &app, &mut vec![0; large.len()]).unwrap();
        });
        drop((client, brought));
        let copies = read(&mut capture);
        assert_eq!(copies.len(), 1, "the encrypted side is not copied");
        let (client, bytes) = &copies[0];
        assert_eq!(client.ip(), address(MESH_SOURCE));
        assert_eq!(bytes.len(), 4 + large.len());
        assert_eq!(bytes[..4], *b"ping");
    });
}

/// Reads a capture until the first connection has ended.
fn read(capture: &mut Capture) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut flows = Flows::new(Limits::default());
    let mut copies = Vec::new();
    let (mut ended, deadline) = (false, Instant::now() + Duration::from_secs(10));
    while !ended {
        assert!(Instant::now() < deadline, "{copies:?}");
        if !capture.read(&mut flows).unwrap() {
            wait(&capture.as_fd());
        }
        while let Some(event) = flows.next() {
            match event {
                Event::Opened { client, .. } => copies.push((client, Vec::new())),
                Event::Data { bytes, .. } => copies.last_mut().unwrap().1.extend_from_slice(&bytes),
                Event::Fin { .. } | Event::Reset { .. } => ended = true,
                Event::Lost { .. } => panic!("lost"),
                Event::Datagram { .. } => {}
            }
        }
    }
    copies
}

#[test]
fn a_spared_client_reaches_the_target_and_others_do_not() {
    isolated(|| {
        let outside = link();
        let app = TcpListener::bind("0.0.0.0:8080").unwrap();
        let target = TargetNet::look(Some(&[address("192.0.2.7")])).unwrap();
        assert_eq!(target.spared, [address("192.0.2.7"), address(GATEWAY)]);
        let mut steal = Steal::attach(&target).unwrap();
        steal.add(Proto::Tcp, 8080).unwrap();
        let probe = outside.run(|| connect(socket(OWN, 8080)).unwrap());
        assert_eq!(probe.local_addr().unwrap().ip(), address(GATEWAY));
        talk(&probe, &accept(&app));
        let client = outside.run(|| connect_from(BEYOND, socket(OWN, 8080)));
        talk(&client, &accept(&steal.tcp()[0]));
    });
}

#[test]
fn without_capabilities_the_reason_names_them() {
    isolated(|| {
        let target = look();
        let (steal, capture) = std::thread::scope(|scope| {
            let refused = || {
                mirrord_netns::privileges::keep_only(&[]).unwrap();
                (Steal::attach(&target).unwrap_err(), Capture::open(&target).unwrap_err())
            };
            scope.spawn(refused).join().unwrap()
        });
        assert_eq!(steal.to_string(), "the agent has no NET_ADMIN and no NET_RAW and no BPF");
        assert_eq!(capture.to_string(), "the agent has no NET_RAW and no BPF");
    });
}
