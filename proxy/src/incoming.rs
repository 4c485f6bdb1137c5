//! The target's clients, connected to the app as if they had come themselves.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use mirrord_netns::spoof::connect_as;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Delivery, Errno};
use mirrord_tunnel::{Answers, Stream};
use tokio::net::TcpStream;
use tracing::debug;

use crate::link::Link;

/// Connects a client's stream to the app.
pub(crate) async fn connect(
    link: Rc<Link>,
    stream: Stream,
    delivery: Delivery,
    client: SocketAddr,
    server: SocketAddr,
) {
    let app = link.app_address(Protocol::Tcp, server);
    let connected = tokio::select! {
        connected = dial(client, app) => connected,
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
            debug!(%client, %app, %error, "the app does not take a client");
            stream.refuse(Errno(error.raw_os_error().unwrap_or(nix::libc::EIO)));
        }
    }
}

async fn dial(client: SocketAddr, app: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::from_std(connect_as(client, app)?.into())?;
    socket.writable().await?;
    match socket.take_error()? {
        None => Ok(socket),
        Some(error) => Err(error),
    }
}
