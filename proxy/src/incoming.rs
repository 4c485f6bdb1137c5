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
    match dial(client, app, &stream).await {
        Ok(Some(socket)) => {
            stream.accept();
            let answers = match delivery {
                Delivery::Steal => Answers::Sent,
                Delivery::Mirror => Answers::Dropped,
            };
            stream.relay(socket, answers).await;
        }
        Ok(None) => {}
        Err(error) => {
            debug!(%client, %app, %error, "the app does not take a client");
            stream.refuse(Errno::of(&error));
        }
    }
}

/// `None` if the client is gone before the app has taken it: the app then sees a reset.
async fn dial(
    client: SocketAddr,
    app: SocketAddr,
    stream: &Stream,
) -> io::Result<Option<TcpStream>> {
    let socket = TcpStream::from_std(connect_as(client, app)?.into())?;
    tokio::select! {
        writable = socket.writable() => writable?,
        () = stream.broken() => {
            socket.set_zero_linger()?;
            return Ok(None);
        }
    }
    match socket.take_error()? {
        None => Ok(Some(socket)),
        Some(error) => Err(error),
    }
}
