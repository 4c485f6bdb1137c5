//! A bare relay, the floor of the benchmarks: accept, connect, copy both ways, nothing else.
//!
//! `probe relay LISTEN CONNECT`, each `HOST:PORT` or `unix:PATH`.

use std::io;
use std::process::ExitCode;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::line::{Line, describe};

const BUFFER: usize = 64 * 1024;

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    async fn open(at: &str) -> io::Result<Self> {
        match at.strip_prefix("unix:") {
            Some(path) => {
                let _ = std::fs::remove_file(path);
                Ok(Self::Unix(UnixListener::bind(path)?))
            }
            None => Ok(Self::Tcp(TcpListener::bind(at).await?)),
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Duplex>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

async fn connect(to: &str) -> io::Result<Box<dyn Duplex>> {
    match to.strip_prefix("unix:") {
        Some(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        None => {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
    }
}

/// Runs until a signal.
pub fn run(words: &[String]) -> ExitCode {
    let [listen, to] = words else {
        eprintln!("probe relay LISTEN CONNECT");
        return ExitCode::from(2);
    };
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve(listen, to)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Line::event("error", describe(&error)).print();
            ExitCode::FAILURE
        }
    }
}

async fn serve(listen: &str, to: &str) -> io::Result<()> {
    let door = Door::open(listen).await?;
    Line::event("relaying", serde_json::json!({ "from": listen, "to": to })).print();
    let mut term = signal(SignalKind::terminate())?;
    let mut relays = JoinSet::new();
    loop {
        tokio::select! {
            accepted = door.accept() => {
                let (near, to) = (accepted?, to.to_owned());
                relays.spawn(async move { relay(near, &to).await });
            }
            Some(_) = relays.join_next() => {}
            _ = term.recv() => return Ok(()),
        }
    }
}

async fn relay(mut near: Box<dyn Duplex>, to: &str) -> io::Result<()> {
    let mut far = connect(to).await?;
    copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await?;
    Ok(())
}
