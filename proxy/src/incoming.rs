//! The target's clients, connected to the app as if they had come themselves.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use mirrord_netns::spoof::connect_as;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Delivery, Errno};
use mirrord_tunnel::{Answers, stands};
use socket2::Socket;
use tokio::net::TcpStream;
use tracing::debug;

use crate::link::Link;
use crate::reception::Client;

/// Connects a client's stream to the app.
pub(crate) async fn connect(link: Rc<Link>, client: Client) {
    let app = link.app_address(Protocol::Tcp, client.server);
    let socket = start(client.address, app);
    carry(client, socket).await;
}

/// Carries a client over a connection to the app that was begun in its name.
pub(crate) async fn carry(client: Client, socket: io::Result<Socket>) {
    let Client { stream, delivery, address, server } = client;
    let connected = async {
        let socket = socket?;
        // Until it is relayed, whoever drops it breaks it off.
        socket.set_linger(Some(Duration::ZERO))?;
        TcpStream::from_std(stands(socket.into()).await?)
    };
    let connected = tokio::select! {
        connected = connected => connected,
        // The client is gone before the app has taken it.
        () = stream.broken() => return,
    };
    match connected {
        Ok(socket) => {
            stream.accept();
            let answers = match delivery {
                Delivery::Steal => Answers::Sent,
                Delivery::Mirror => Answers::Dropped,
            };
            stream.relay(socket, answers).await;
        }
        Err(error) => {
            debug!(client = %address, %server, %error, "the app does not take a client");
            stream.refuse(Errno::of(&error));
        }
    }
}

/// A client on loopback is a mesh's proxy beside the target: who it stands for it says in words of
/// its own, so that the app does as well with another address of loopback.
fn start(client: SocketAddr, app: SocketAddr) -> io::Result<Socket> {
    let result = connect_as(client, app);
    match &result {
        Err(error) if client.ip().is_loopback() => {
            debug!(%client, %app, %error, "a client comes from another address");
            connect_as(SocketAddr::new(loopback(app), 0), app)
        }
        _ => result,
    }
}

fn loopback(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
