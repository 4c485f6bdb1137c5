//! The proxy's end of a tunnel, which remembers what comes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mirrord_protocol::Token;
use mirrord_protocol::frame::{Delivery, Description, Frame, Open, Port};
use mirrord_tunnel::{Events, Pipe, Socket, Stream, Tunnel, TunnelError, connect};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::agent::TOKEN;

const PATIENCE: Duration = Duration::from_secs(10);

/// A tunnel to an agent.
pub struct Peer {
    pub tunnel: Tunnel,
    heard: Rc<Heard>,
    pub ended: JoinHandle<TunnelError>,
}

#[derive(Default)]
struct Heard {
    frames: RefCell<Vec<Frame>>,
    streams: RefCell<Vec<(Stream, Open)>>,
    news: Notify,
}

struct Ears(Rc<Heard>);

impl Events for Ears {
    fn opened(&self, stream: Stream, open: Open) {
        self.0.streams.borrow_mut().push((stream, open));
        self.0.news.notify_one();
    }

    fn message(&self, frame: Frame) -> Result<(), TunnelError> {
        self.0.frames.borrow_mut().push(frame);
        self.0.news.notify_one();
        Ok(())
    }
}

fn drive(tunnel: &Tunnel, socket: Socket<Pipe>, heard: &Rc<Heard>) -> JoinHandle<TunnelError> {
    let (driven, ears) = (tunnel.clone(), Ears(heard.clone()));
    tokio::task::spawn_local(async move { driven.drive(socket, &ears).await })
}

impl Peer {
    /// Makes a tunnel to the target with this container, or the reason why there is none.
    pub async fn connect(agent: SocketAddr, target: Option<&str>) -> Result<Self, String> {
        Self::connect_with(agent, target, TOKEN).await
    }

    pub async fn connect_with(
        agent: SocketAddr,
        target: Option<&str>,
        token: &str,
    ) -> Result<Self, String> {
        let pipe = Pipe::tcp(TcpStream::connect(agent).await.unwrap()).unwrap();
        let socket = connect(pipe, &Token::new(token), target).await;
        let mut socket = socket.map_err(|error| error.to_string())?;
        let (tunnel, heard) = (Tunnel::of_proxy(), Rc::new(Heard::default()));
        tunnel.greet(&mut socket).await.map_err(|error| error.to_string())?;
        let ended = drive(&tunnel, socket, &heard);
        Ok(Self { tunnel, heard, ended })
    }

    /// Goes on through another pipe; the first one breaks if it has not.
    pub async fn resume(&mut self, agent: SocketAddr, target: &str) {
        self.ended.abort();
        let pipe = Pipe::tcp(TcpStream::connect(agent).await.unwrap()).unwrap();
        let mut socket = connect(pipe, &Token::new(TOKEN), Some(target)).await.unwrap();
        self.tunnel.greet(&mut socket).await.unwrap();
        self.ended = drive(&self.tunnel, socket, &self.heard);
    }

    /// Ends it as a proxy that is killed does.
    pub async fn end(self) {
        self.ended.abort();
        let _ = self.ended.await;
    }

    /// Asks who the target is.
    pub async fn describe(&self) -> Description {
        self.tunnel.send(&Frame::Describe { env: true });
        self.until(|heard| {
            heard.frames.borrow_mut().pop().map(|frame| match frame {
                Frame::Description(description) => *description,
                other => panic!("{other:?}"),
            })
        })
        .await
    }

    /// Asks for a port; the reason if it can't be had.
    pub async fn subscribe(&self, port: Port, delivery: Delivery) -> Option<String> {
        self.tunnel.send(&Frame::Subscribe(port, delivery));
        self.until(|heard| {
            heard.frames.borrow_mut().pop().map(|frame| match frame {
                Frame::Subscribed(of, reason) if of == port => reason,
                other => panic!("{other:?}"),
            })
        })
        .await
    }

    /// The next stream that the agent opens.
    pub async fn incoming(&self) -> (Stream, Open) {
        self.until(|heard| heard.streams.borrow_mut().pop()).await
    }

    async fn until<T>(&self, mut look: impl FnMut(&Heard) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = look(&self.heard) {
                    return found;
                }
                self.heard.news.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("nothing came")
    }
}

/// Runs a test's asynchronous part on this thread, and so in its namespace.
pub fn on_this_thread<F: Future<Output = ()> + 'static>(test: F) {
    mirrord_tunnel::on_one_thread(async move {
        test.await;
        std::io::Result::Ok(())
    })
    .unwrap();
}
