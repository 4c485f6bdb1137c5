//! The app's connections: begun at the agent, and completed at the app when the agent has answered.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::rc::Rc;

use mirrord_protocol::frame::Errno;
use mirrord_protocol::layer::{Transport, page};
use mirrord_tunnel::{Answers, Stream};
use nix::libc;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tracing::debug;

use super::base::{Base, written};
use super::call::{Answer, Call, CallError};
use super::memory::Ends;
use super::seat;
use super::sink::{self, Sink};
use super::slots::Lease;
use crate::outgoing::reach;

/// Answers a process that wants to be connected; goes on when the process has gone.
pub(crate) async fn dial(
    base: &Rc<Base>,
    sink: &Rc<Sink>,
    mut call: Call,
    remote: SocketAddr,
    own: Option<SocketAddrV4>,
) -> Result<(), CallError> {
    if !base.takes(Transport::Tcp, remote) {
        return call.answer(Answer::direct()).await;
    }
    let Some(socket) = call.descriptor.take() else {
        // There was no room for it in this process.
        return call.answer(Answer::refused(libc::ENOBUFS)).await;
    };
    let taken = base.lease_with(|slot| {
        let app = seat::take(socket, slot)?;
        let local = base.own_address(remote, app.port());
        Ok((Ends { remote: Some(remote), local }, app))
    });
    let (lease, app) = match taken {
        Ok(taken) => taken,
        Err(errno) => return call.answer(Answer::refused(errno.0)).await,
    };
    call.answer(Answer::done(lease.slot().0).at(sink.port())).await?;
    let connection = Connection { base: base.clone(), sink: sink.clone(), lease, remote, own, app };
    base.link.tasks.spawn_local(connection.complete());
    Ok(())
}

/// Who has answered.
enum Far {
    /// Somebody in the target's network.
    Target(Stream),
    /// The app itself.
    App(TcpStream),
}

struct Connection {
    base: Rc<Base>,
    sink: Rc<Sink>,
    lease: Lease,
    remote: SocketAddr,
    /// Where the app itself listens for this.
    own: Option<SocketAddrV4>,
    app: SocketAddrV4,
}

impl Connection {
    async fn complete(self) {
        let (slot, remote) = (self.lease.slot(), self.remote);
        let far = tokio::select! {
            far = self.reach() => far,
            () = sink::given_up(self.app) => {
                return gave_up(remote, Err(io::ErrorKind::ConnectionAborted.into()));
            }
        };
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

    /// Connects the far end.
    async fn reach(&self) -> Result<Far, Errno> {
        if let Some(own) = self.own {
            let socket = sink::connected_from(self.lease.slot(), own).await;
            return socket.map(Far::App).map_err(|error| Errno::of(&error));
        }
        let (tunnel, to) = (self.base.tunnel().await, self.base.remote(self.remote));
        reach(tunnel, to, self.base.is_targets(to.ip())).await.map(Far::Target)
    }
}

fn gave_up(remote: SocketAddr, met: io::Result<()>) {
    if let Err(error) = met {
        debug!(%remote, %error, "the app has given up connecting");
    }
}
