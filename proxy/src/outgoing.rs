//! The app's connections: the kernel hands them to us, whatever their address and port.

use std::io;
use std::rc::Rc;

use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Open, OrigDst};
use mirrord_tunnel::{Answers, Tunnel, or_pause};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::link::Link;
use crate::names::Names;
use crate::place::Netns;

/// Takes connections as long as the process lives; while no tunnel stands they wait.
pub(crate) async fn accept(
    link: Rc<Link>,
    place: Rc<Netns>,
    listener: TcpListener,
) -> anyhow::Error {
    loop {
        let accepted = listener.accept().await;
        let Some(tunnel) = link.tunnel().await else {
            return anyhow::anyhow!("the proxy is going");
        };
        if let Some((socket, _)) = or_pause(accepted, "accepting a connection of the app").await
            && let Err(error) = relay(&link, &tunnel, &place.names(), &listener, socket)
        {
            warn!(%error, "a connection of the app was lost");
        }
    }
}

fn relay(
    link: &Link,
    tunnel: &Tunnel,
    names: &Names,
    listener: &TcpListener,
    socket: TcpStream,
) -> io::Result<()> {
    let to = socket.local_addr()?;
    if to == listener.local_addr()? {
        // Connected to the listener itself, not steered to it: there is nowhere to go.
        return Ok(());
    }
    let to = OrigDst(names.remote(to));
    let stream = tunnel.open(Open::Connect(Protocol::Tcp, to));
    link.tasks.spawn_local(stream.relay(socket, Answers::Sent));
    Ok(())
}
