//! Connections that were begun and may not stand yet.

use std::io;
use std::net::TcpStream;

/// Gives a non-blocking connection that was begun once it stands.
///
/// # Errors
/// What connect(2) would have failed with.
pub async fn stands(socket: TcpStream) -> io::Result<TcpStream> {
    // To a neighbour on the same machine the kernel has done it all within connect(2).
    if socket.peer_addr().is_ok() {
        return Ok(socket);
    }
    let socket = tokio::net::TcpStream::from_std(socket)?;
    socket.writable().await?;
    match socket.take_error()? {
        None => socket.into_std(),
        Some(error) => Err(error),
    }
}
