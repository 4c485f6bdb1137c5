//! One tunnel's work: what the proxy asks, each in its own task.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Delivery, Errno, Frame, Open, OrigDst, Port};
use mirrord_tunnel::{Events, Greeting, Pipe, Socket, Stream, Tunnel, TunnelError};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::mirror::Mirror;
use crate::steal::Stealer;
use crate::target::Target;
use crate::{describe, echo, outgoing, unix};

/// One tunnel and what it holds in the target's namespace; all of it goes when this is dropped.
pub(crate) struct Session {
    pub(crate) tunnel: Tunnel,
    tasks: TaskTracker,
    target: Rc<Target>,
    incoming: RefCell<Taken>,
}

/// What is taken of the target's incoming traffic; nothing until a port is subscribed.
#[derive(Default)]
struct Taken {
    stealer: Option<Rc<Stealer>>,
    mirror: Option<Rc<Mirror>>,
}

impl Session {
    /// For a tunnel that a proxy asks for.
    pub(crate) fn new(target: Rc<Target>, greeting: &Greeting) -> Self {
        Self {
            tunnel: Tunnel::of(greeting),
            tasks: TaskTracker::new(),
            target,
            incoming: RefCell::default(),
        }
    }

    /// Serves until the pipe ends; says why it did.
    pub(crate) async fn serve(&self, socket: Socket<Pipe>) -> TunnelError {
        self.tunnel.drive(socket, self).await
    }

    /// Goes on over another pipe.
    pub(crate) async fn resume(&self, mut socket: Socket<Pipe>, greeting: Greeting) -> TunnelError {
        if let Err(error) = self.tunnel.answer(&mut socket, &greeting).await {
            return error;
        }
        self.take_back();
        self.serve(socket).await
    }

    /// While there is no pipe, the target has its new clients itself; those that came before wait.
    pub(crate) fn lend(&self) {
        let taken = self.incoming.borrow();
        let lent = taken.stealer.as_ref().map_or(Ok(()), |stealer| stealer.lend());
        if let Err(error) = lent {
            warn!(%error, "giving the ports back for a while failed");
        }
        taken.mirror.iter().for_each(|mirror| mirror.pause(true));
    }

    fn take_back(&self) {
        let taken = self.incoming.borrow();
        let failed = taken.stealer.as_ref().map(|stealer| stealer.take_back()).unwrap_or_default();
        for (port, error) in failed {
            self.tunnel.send(&Frame::Subscribed(port, Some(format!("{error:#}"))));
        }
        taken.mirror.iter().for_each(|mirror| mirror.pause(false));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tunnel.end();
        let taken = self.incoming.take();
        if let Some(stealer) = taken.stealer {
            stealer.stop();
        }
        if let Some(mirror) = taken.mirror {
            mirror.stop();
        }
    }
}

impl Events for Session {
    fn opened(&self, stream: Stream, open: Open) {
        match open {
            Open::Connect(Protocol::Tcp, OrigDst(to)) => {
                self.tasks.spawn_local(outgoing::connect(stream, self.source_for(to), to));
            }
            Open::Connect(Protocol::Udp, OrigDst(to)) => {
                outgoing::datagrams(&self.tasks, stream, to)
            }
            Open::ConnectUnix(kind, name) => {
                let pid = self.target.pid();
                self.tasks.spawn_local(unix::connect(stream, pid, kind, name));
            }
            Open::Echo(OrigDst(to)) => echo::ask(&self.tasks, stream, to),
            // Only the target's side can have incoming clients.
            Open::Incoming { .. } => stream.refuse(Errno(nix::libc::EPROTO)),
        }
    }

    fn message(&self, frame: Frame) -> Result<(), TunnelError> {
        match frame {
            Frame::Describe { env } => {
                let description = describe::describe(&self.target, env);
                self.tunnel.send(&Frame::Description(Box::new(description)));
            }
            Frame::Subscribe(port, delivery) => {
                let reason = self.subscribe(port, delivery).err().map(|error| format!("{error:#}"));
                if let Some(reason) = &reason {
                    warn!(?port, reason, "subscribing failed");
                }
                self.tunnel.send(&Frame::Subscribed(port, reason));
            }
            Frame::Unsubscribe(port) => self.unsubscribe(port),
            Frame::Want { v6, count } => outgoing::give(&self.tunnel, v6, count),
            _ => return Err(TunnelError::Unexpected),
        }
        Ok(())
    }
}

impl Session {
    /// Where a connection of the app must come from, if the kernel may not choose.
    fn source_for(&self, to: SocketAddr) -> Option<Ipv4Addr> {
        self.incoming.borrow().stealer.as_ref().and_then(|stealer| stealer.source_for(to))
    }

    fn unsubscribe(&self, port: Port) {
        let taken = self.incoming.borrow();
        let stolen = taken.stealer.as_ref().map_or(Ok(()), |stealer| stealer.remove(port));
        let copied = taken.mirror.as_ref().map_or(Ok(()), |mirror| mirror.remove(port));
        if let Err(error) = stolen.and(copied) {
            warn!(?port, %error, "giving a port back failed");
        }
    }

    fn subscribe(&self, port: Port, delivery: Delivery) -> anyhow::Result<()> {
        let (tunnel, tasks) = (&self.tunnel, &self.tasks);
        let mut taken = self.incoming.borrow_mut();
        match delivery {
            Delivery::Steal => {
                let stealer = match &taken.stealer {
                    Some(stealer) => stealer.clone(),
                    None => {
                        let stealer = Stealer::start(tunnel, tasks, self.target.look()?)?;
                        taken.stealer.insert(stealer).clone()
                    }
                };
                stealer.add(port)
            }
            Delivery::Mirror => {
                let mirror = match &taken.mirror {
                    Some(mirror) => mirror.clone(),
                    None => {
                        let mirror = Mirror::start(tunnel, tasks, &self.target.look()?)?;
                        taken.mirror.insert(mirror).clone()
                    }
                };
                mirror.add(port)
            }
        }
    }
}
