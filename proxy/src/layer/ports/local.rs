//! Local doors: the app's port, open on this machine as the app asked for it, so that what comes
//! from here, or to a published port, reaches the app as well.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};

use mirrord_protocol::layer::Transport;
use mirrord_tunnel::datagrams::Readiness;
use mirrord_tunnel::or_pause;
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Socket, Type};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

use super::Ports;
use crate::layer::base::Base;
use crate::layer::claims::Wanted;
use crate::layer::memory::Ends;
use crate::layer::sink::connected_from;

const BACKLOG: i32 = 1024;

/// The doors that are open; `None` for one that could not be opened.
#[derive(Default)]
pub(super) struct Doors {
    open: RefCell<HashMap<Wanted, Option<AbortHandle>>>,
    keepers: RefCell<JoinSet<()>>,
}

impl Doors {
    /// Opens and closes so that these are open.
    pub(super) fn keep(&self, ports: &Rc<Ports>, wanted: &[Wanted]) {
        let mut open = self.open.borrow_mut();
        open.retain(|door, keeper| {
            let stays = wanted.contains(door);
            if let Some(keeper) = keeper.as_ref().filter(|_| !stays) {
                keeper.abort();
            }
            stays
        });
        let mut keepers = self.keepers.borrow_mut();
        while keepers.try_join_next().is_some() {}
        for door in wanted {
            open.entry(*door).or_insert_with(|| {
                open_door(ports, *door, &mut keepers)
                    .inspect_err(|error| {
                        let address = door.address;
                        debug!(%address, %error, "a port is not open on this machine");
                    })
                    .ok()
            });
        }
    }
}

fn open_door(
    ports: &Rc<Ports>,
    door: Wanted,
    keepers: &mut JoinSet<()>,
) -> io::Result<AbortHandle> {
    let ports = Rc::downgrade(ports);
    let socket = bind(&door)?;
    Ok(match door.transport {
        Transport::Tcp => {
            socket.listen(BACKLOG)?;
            keepers.spawn_local(serve(ports, door, TcpListener::from_std(socket.into())?))
        }
        Transport::Udp => {
            keepers.spawn_local(pass_on(ports, door, UdpSocket::from_std(socket.into())?.into()))
        }
    })
}

fn bind(door: &Wanted) -> io::Result<Socket> {
    let domain = Domain::for_address(door.address);
    let kind = match door.transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), None)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(door.v6_only)?;
    }
    if door.transport == Transport::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&door.address.into())?;
    Ok(socket)
}

async fn serve(ports: Weak<Ports>, door: Wanted, listener: TcpListener) {
    let mut visitors = JoinSet::new();
    loop {
        while visitors.try_join_next().is_some() {}
        let accepted = or_pause(listener.accept().await, "accepting a local client").await;
        let Some(ports) = ports.upgrade() else { return };
        if let Some((socket, client)) = accepted
            && let Some(fake) = ports.fake_of(&door)
        {
            visitors.spawn_local(visit(ports.base.clone(), socket, client, fake));
        }
    }
}

async fn visit(base: Rc<Base>, mut client: TcpStream, address: SocketAddr, fake: u16) {
    let relayed = async {
        let remote = SocketAddr::new(address.ip().to_canonical(), address.port());
        let ends = Ends { remote: Some(remote), local: client.local_addr().ok() };
        let lease = base.lease(ends).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        let app = SocketAddrV4::new(Ipv4Addr::LOCALHOST, fake);
        let mut app = connected_from(lease.slot(), app).await?;
        client.set_nodelay(true)?;
        copy_bidirectional(&mut client, &mut app).await.map(drop)
    };
    if let Err(error) = relayed.await {
        debug!(client = %address, %error, "a local client was lost");
        let _ = client.set_zero_linger();
    }
}

async fn pass_on(ports: Weak<Ports>, door: Wanted, socket: Rc<UdpSocket>) {
    let readiness = match Readiness::of(&socket) {
        Ok(readiness) => readiness,
        Err(error) => return debug!(%error, "a port is not open on this machine"),
    };
    loop {
        let received = readiness.receive(|buffer| {
            let (len, client) = receive(&socket, buffer)?;
            if let Some(ports) = ports.upgrade()
                && let Some(fake) = ports.fake_of(&door)
            {
                let app = SocketAddrV4::new(Ipv4Addr::LOCALHOST, fake);
                ports.datagrams.local(&socket, client, app, &buffer[..len]);
            }
            Ok(())
        });
        or_pause(received.await, "receiving a datagram of a local client").await;
        if ports.strong_count() == 0 {
            return;
        }
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let (len, client) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer)?;
    let client = client.ok_or(io::ErrorKind::InvalidData)?;
    match (client.as_sockaddr_in(), client.as_sockaddr_in6()) {
        (Some(v4), _) => Ok((len, SocketAddrV4::from(*v4).into())),
        (_, Some(v6)) => Ok((len, SocketAddrV6::from(*v6).into())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
