//! An agent of which only the tunnel is real: behind each of its addresses is a fate of its own.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{
    ClientAddr, Delivery, Description, Errno, Frame, Open, OrigDst, Port,
};
use mirrord_protocol::unix::{UnixKind, UnixName};
use mirrord_tunnel::{Answers, Events, Greeting, HandedPipe, Stream, Tunnel, TunnelError, accept};
use nix::libc;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Child;
use tokio::task::{JoinHandle, spawn_local};

use crate::dns;
use crate::session::{Session, token};

/// Leads to this machine's loopback, the port as it is.
pub const REACHABLE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Refuses with the error that the port says.
pub const REFUSING: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Never answers.
pub const BLACK_HOLE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);
/// The target's name server.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The target.
pub const TARGET: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 5);

/// An agent at the far end of a pipe.
pub struct Agent {
    pub tunnel: Tunnel,
    /// What it was asked for.
    pub ports: Rc<RefCell<Vec<Port>>>,
    /// Streams that were opened and never answered.
    pub waiting: Rc<RefCell<Vec<Stream>>>,
    pub bringer: Child,
    driving: JoinHandle<TunnelError>,
}

struct Doing {
    tunnel: Tunnel,
    ports: Rc<RefCell<Vec<Port>>>,
    waiting: Rc<RefCell<Vec<Stream>>>,
}

impl Agent {
    /// Comes up beside the target.
    pub async fn start(session: &Session) -> Self {
        let (bringer, pipe): (Child, HandedPipe) = session.bring();
        let admit = |_: Option<&str>| Ok::<(), String>(());
        let (mut socket, ()) = accept(pipe, &token(), admit).await.unwrap();
        let mut greeting = Greeting::hear(&mut socket).await.unwrap();
        if greeting.received.is_some() {
            greeting = greeting.deny(&mut socket).await.unwrap();
        }
        let tunnel = Tunnel::of(&greeting);
        let (ports, waiting) = (Rc::default(), Rc::default());
        let doing = Doing {
            tunnel: tunnel.clone(),
            ports: Rc::clone(&ports),
            waiting: Rc::clone(&waiting),
        };
        let driven = tunnel.clone();
        let driving = spawn_local(async move { driven.drive(socket, &doing).await });
        Self { tunnel, ports, waiting, bringer, driving }
    }

    /// A client of the target has come.
    pub fn client(&self, protocol: Protocol, client: &str, port: u16) -> Stream {
        self.tunnel.open(Open::Incoming {
            protocol,
            delivery: Delivery::Steal,
            client: ClientAddr(client.parse().unwrap()),
            server: OrigDst(SocketAddr::from((TARGET, port))),
        })
    }

    /// Waits until the proxy wants exactly these TCP ports.
    pub async fn wants(&self, ports: &[u16]) {
        crate::until(&format!("ports {ports:?}"), || {
            let mut wanted: Vec<u16> = self.ports.borrow().iter().map(|port| port.number).collect();
            wanted.sort_unstable();
            wanted == ports
        })
        .await;
    }

    /// Waits until the other side ends the tunnel.
    pub async fn ended(mut self) {
        self.driving.await.unwrap();
        self.bringer.wait().await.unwrap();
    }
}

impl Events for Doing {
    fn opened(&self, stream: Stream, open: Open) {
        let (protocol, to) = match open {
            Open::Connect(protocol, OrigDst(to)) => (protocol, to),
            Open::ConnectUnix(kind, name) => return reach_unix(stream, kind, name),
            other => panic!("{other:?}"),
        };
        let IpAddr::V4(ip) = to.ip() else { return stream.refuse(Errno(libc::ENETUNREACH)) };
        match (protocol, ip) {
            (_, BLACK_HOLE) => self.waiting.borrow_mut().push(stream),
            (_, REFUSING) => stream.refuse(Errno(to.port().into())),
            (Protocol::Tcp, REACHABLE) => drop(spawn_local(reach(stream, to.port()))),
            (Protocol::Udp, REACHABLE) => self.echo(stream, |payload| Some(payload.to_vec())),
            (Protocol::Udp, NAME_SERVER) => self.echo(stream, dns::answer),
            _ => stream.refuse(Errno(libc::EHOSTUNREACH)),
        }
    }

    fn message(&self, frame: Frame) -> Result<(), TunnelError> {
        match frame {
            Frame::Describe { .. } => {
                let description = Description {
                    hostname: "web-0".into(),
                    addresses: vec![(TARGET.into(), 24)],
                    resolv_conf: Bytes::from(format!(
                        "nameserver {NAME_SERVER}\nsearch shop.example example\noptions ndots:5\n"
                    )),
                    hosts: Bytes::from(format!("{TARGET} web-0\n10.9.9.9 in-hosts\n")),
                    environ: Bytes::new(),
                };
                self.tunnel.send(&Frame::Description(Box::new(description)));
            }
            Frame::Subscribe(port, _) => {
                self.ports.borrow_mut().push(port);
                self.tunnel.send(&Frame::Subscribed(port, None));
            }
            Frame::Unsubscribe(port) => self.ports.borrow_mut().retain(|other| *other != port),
            _ => return Err(TunnelError::Unexpected),
        }
        Ok(())
    }
}

impl Doing {
    fn echo(&self, stream: Stream, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + 'static) {
        stream.accept();
        let stream = Rc::new(stream);
        let back = Rc::downgrade(&stream);
        stream.on_datagram(move |payload| {
            if let Some(stream) = back.upgrade()
                && let Some(answer) = answer(&payload)
            {
                stream.send_datagram(&answer);
            }
        });
        spawn_local(async move { stream.broken().await });
    }
}

/// Those that end with `echo` or `named` send back what comes; `deaf` is the name of one that nobody
/// serves.
fn reach_unix(stream: Stream, kind: UnixKind, name: UnixName) {
    let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
    if !name.ends_with("echo") && !name.ends_with("named") {
        let is_there = name.ends_with("deaf");
        return stream.refuse(Errno(if is_there { libc::ECONNREFUSED } else { libc::ENOENT }));
    }
    let (near, mut far) = UnixStream::pair().unwrap();
    stream.accept();
    spawn_local(stream.relay_unix(kind, near));
    spawn_local(async move {
        let (mut read, mut write) = far.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
}

async fn reach(stream: Stream, port: u16) {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(socket) => {
            stream.accept();
            stream.relay(socket, Answers::Sent).await;
        }
        Err(error) => stream.refuse(Errno::of(&error)),
    }
}
