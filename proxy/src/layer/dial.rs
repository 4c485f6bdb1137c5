//! The app's connections: begun at the agent, and completed at the app when the agent has answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;

use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Errno, Open, OrigDst};
use mirrord_protocol::layer::{DecodeError, Slot, Transport, decode_address, page};
use mirrord_tunnel::{Answers, OpenError, Stream};
use nix::libc;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tracing::debug;

use super::base::{Base, written};
use super::call::{Answer, Call, CallError};
use super::memory::Ends;
use super::sink::{self, Sink, connect_from, connected};
use super::slots::Lease;

/// Answers a process that wants to be connected; goes on when the process has gone.
pub(crate) async fn dial(
    base: &Rc<Base>,
    sink: &Rc<Sink>,
    call: Call,
    remote: SocketAddr,
    own: Option<SocketAddrV4>,
) -> Result<(), CallError> {
    if !base.takes(Transport::Tcp, remote) {
        return call.answer(Answer::direct()).await;
    }
    let ends = Ends { remote: Some(remote), local: base.own_address(remote, 0) };
    let lease = match base.lease(ends) {
        Ok(lease) => lease,
        Err(errno) => return call.answer(Answer::refused(errno.0)).await,
    };
    let far = base.link.tasks.spawn_local(reach(base.clone(), remote, own, lease.slot()));
    let answer = Answer::done(lease.slot().0).at(sink.port());
    let app = call.converse(answer).await.and_then(|bytes| {
        let address = decode_address(&bytes).and_then(local);
        address.ok_or(CallError::Decode(DecodeError))
    });
    let app = match app {
        Ok(app) => app,
        Err(error) => {
            far.abort();
            return Err(error);
        }
    };
    let connection = Connection { base: base.clone(), sink: sink.clone(), lease, remote, app };
    base.link.tasks.spawn_local(connection.complete(far));
    Ok(())
}

/// Who has answered.
enum Far {
    /// Somebody in the target's network.
    Target(Stream),
    /// The app itself.
    App(TcpStream),
}

/// Connects the far end.
async fn reach(
    base: Rc<Base>,
    remote: SocketAddr,
    own: Option<SocketAddrV4>,
    slot: Slot,
) -> Result<Far, Errno> {
    if let Some(own) = own {
        let socket = connected(connect_from(slot, own)).await;
        return socket.map(Far::App).map_err(|error| Errno::of(&error));
    }
    let unreachable = Errno(libc::ENETUNREACH);
    let tunnel = base.tunnel().await.ok_or(unreachable)?;
    let stream = tunnel.open(Open::Connect(Protocol::Tcp, OrigDst(base.remote(remote))));
    match stream.connected().await {
        Ok(()) => Ok(Far::Target(stream)),
        Err(OpenError::Refused(errno)) => Err(errno),
        Err(OpenError::Reset) => Err(unreachable),
    }
}

/// Where a socket that the app has bound connects to loopback from.
fn local(address: SocketAddr) -> Option<SocketAddrV4> {
    let std::net::IpAddr::V4(ip) = address.ip().to_canonical() else {
        return address.ip().is_unspecified().then(|| at_localhost(address.port()));
    };
    Some(if ip.is_unspecified() {
        at_localhost(address.port())
    } else {
        SocketAddrV4::new(ip, address.port())
    })
}

fn at_localhost(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

struct Connection {
    base: Rc<Base>,
    sink: Rc<Sink>,
    lease: Lease,
    remote: SocketAddr,
    app: SocketAddrV4,
}

impl Connection {
    async fn complete(self, mut far: JoinHandle<Result<Far, Errno>>) {
        let (slot, remote) = (self.lease.slot(), self.remote);
        let known = match self.base.own_address(remote, self.app.port()) {
            Some(local) => written(self.base.memory.set_local(slot, local)),
            None => Ok(()),
        };
        let far = tokio::select! {
            far = &mut far => far.unwrap_or(Err(Errno(libc::ENETUNREACH))),
            () = sink::given_up(self.app) => {
                gave_up(remote, Err(io::ErrorKind::ConnectionAborted.into()));
                return far.abort();
            }
        };
        let far = known.and(far);
        let outcome = match &far {
            Ok(_) => page::CONNECTED,
            Err(errno) => page::FAILED + errno.0.unsigned_abs(),
        };
        let far = written(self.base.memory.set_outcome(slot, outcome)).and(far);
        let far = match far {
            Ok(far) => far,
            Err(errno) => {
                debug!(%remote, errno = errno.0, "connecting failed");
                return gave_up(remote, self.sink.break_off(slot, self.app).await);
            }
        };
        match (self.sink.meet(slot, self.app).await, far) {
            (Ok(socket), Far::Target(stream)) => {
                stream.relay(socket, Answers::Sent).await;
            }
            (Ok(mut socket), Far::App(mut own)) => {
                let _ = socket.set_nodelay(true);
                if let Err(error) = copy_bidirectional(&mut socket, &mut own).await {
                    debug!(%remote, %error, "a connection of the app to itself broke");
                    let _ = socket.set_zero_linger().and_then(|()| own.set_zero_linger());
                }
            }
            (Err(error), _) => gave_up(remote, Err(error)),
        }
    }
}

fn gave_up(remote: SocketAddr, met: io::Result<()>) {
    if let Err(error) = met {
        debug!(%remote, %error, "the app has given up connecting");
    }
}
