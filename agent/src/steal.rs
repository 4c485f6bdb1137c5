//! The target's new connections and datagrams to a port, taken in its place.
//!
//! The kernel hands them to our sockets as long as this process lives: nothing is written down
//! that could outlive it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;

use anyhow::Context;
use mirrord_netns::spoof::PacketSender;
use mirrord_netns::target::AGENT_SOURCE;
use mirrord_netns::{Proto, Steal, TargetNet};
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{ClientAddr, Delivery, Open, OrigDst, Port};
use mirrord_tunnel::datagrams::Readiness;
use mirrord_tunnel::{Tunnel, or_pause};
use nix::libc;
use socket2::SockRef;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::clients::Clients;

/// What steals for one tunnel; dropping it gives every port back.
pub(crate) struct Stealer {
    steal: RefCell<Steal>,
    target: TargetNet,
    ports: RefCell<HashSet<Port>>,
    tunnel: Tunnel,
    clients: Clients,
    stop: CancellationToken,
}

impl Stealer {
    pub(crate) fn start(
        tunnel: &Tunnel,
        tasks: &TaskTracker,
        target: TargetNet,
    ) -> anyhow::Result<Rc<Self>> {
        let steal = Steal::attach(&target).context("taking the target's traffic")?;
        let mut listeners = Vec::new();
        for listener in steal.tcp() {
            listeners.push(Readiness::of(listener)?);
        }
        let mut sockets = Vec::new();
        for socket in steal.udp() {
            sockets.push(Readiness::of(socket)?);
        }
        let answers = PacketSender::open(0).context("answering the target's clients")?;
        let stealer = Rc::new(Self {
            steal: RefCell::new(steal),
            target,
            ports: RefCell::default(),
            tunnel: tunnel.clone(),
            clients: Clients::new(tunnel, Delivery::Steal, Some(answers)),
            stop: CancellationToken::new(),
        });
        for (index, readiness) in listeners.into_iter().enumerate() {
            let (stop, work) = (stealer.stop.clone(), stealer.clone());
            let streams = tasks.clone();
            tasks.spawn_local(async move {
                stop.run_until_cancelled(work.accept(index, readiness, streams)).await;
            });
        }
        for (index, readiness) in sockets.into_iter().enumerate() {
            let (stop, work) = (stealer.stop.clone(), stealer.clone());
            tasks.spawn_local(async move {
                stop.run_until_cancelled(work.receive(index, readiness)).await;
            });
        }
        Ok(stealer)
    }

    pub(crate) fn add(&self, port: Port) -> anyhow::Result<()> {
        self.steal.borrow_mut().add(proto(port.protocol), port.number)?;
        self.ports.borrow_mut().insert(port);
        Ok(())
    }

    pub(crate) fn remove(&self, port: Port) -> anyhow::Result<()> {
        if self.ports.borrow_mut().remove(&port) {
            self.steal.borrow_mut().remove(proto(port.protocol), port.number)?;
        }
        Ok(())
    }

    /// New clients of every port are the target's, until [`Stealer::take_back`].
    pub(crate) fn lend(&self) -> anyhow::Result<()> {
        let mut steal = self.steal.borrow_mut();
        for port in self.ports.borrow().iter() {
            steal.remove(proto(port.protocol), port.number)?;
        }
        Ok(())
    }

    /// New clients are ours again; gives the ports of which that failed.
    pub(crate) fn take_back(&self) -> Vec<(Port, anyhow::Error)> {
        let ports: Vec<Port> = self.ports.borrow().iter().copied().collect();
        ports.into_iter().filter_map(|port| Some((port, self.add(port).err()?))).collect()
    }

    /// Where a connection of ours to the target itself must come from, so that we do not take it.
    pub(crate) fn source_for(&self, to: SocketAddr) -> Option<Ipv4Addr> {
        let to_target = to.ip().is_loopback() || self.target.own.contains(&to.ip());
        (self.target.mesh && to.is_ipv4() && to_target).then_some(AGENT_SOURCE)
    }

    /// Ends the tasks, whose hold on this would otherwise keep the ports.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Whoever is handed on is never known to this thread's reactor.
    async fn accept(self: Rc<Self>, index: usize, readiness: Readiness, tasks: TaskTracker) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        loop {
            let next = || SockRef::from(&self.steal.borrow().tcp()[index]).accept4(flags);
            let accepted = readiness.take(next).await;
            let accepted = or_pause(accepted, "accepting a client of the target").await;
            if let Some((socket, client)) = accepted
                && let Some(client) = client.as_socket()
                && let Err(error) = self.admit(socket.into(), client, &tasks)
            {
                debug!(%client, %error, "a client was lost");
            }
        }
    }

    fn admit(
        &self,
        socket: TcpStream,
        client: SocketAddr,
        tasks: &TaskTracker,
    ) -> std::io::Result<()> {
        let server = socket.local_addr()?;
        let port = Port { protocol: Protocol::Tcp, number: server.port() };
        if !self.ports.borrow().contains(&port) {
            // It found our listener by its own address, or the port was just given back.
            return Ok(());
        }
        let open = Open::Incoming {
            protocol: Protocol::Tcp,
            delivery: Delivery::Steal,
            client: ClientAddr(client),
            server: OrigDst(server),
        };
        if let Some(relaying) = self.tunnel.bring(open, socket)? {
            tasks.spawn_local(relaying);
        }
        Ok(())
    }

    async fn receive(self: Rc<Self>, index: usize, readiness: Readiness) {
        loop {
            let received = readiness.receive(|buffer| {
                let datagram = self.steal.borrow().udp()[index].recv(buffer)?;
                self.clients.forward(datagram.from, datagram.to, &buffer[..datagram.len]);
                Ok(())
            });
            or_pause(received.await, "receiving a datagram for the target").await;
        }
    }
}

pub(crate) fn proto(protocol: Protocol) -> Proto {
    match protocol {
        Protocol::Tcp => Proto::Tcp,
        Protocol::Udp => Proto::Udp,
    }
}
