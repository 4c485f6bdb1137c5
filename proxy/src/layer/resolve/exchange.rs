//! One question to the target's name servers, through the tunnel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Open, OrigDst};
use mirrord_protocol::layer::Cause;
use mirrord_tunnel::{Answers, Stream, Tunnel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::conf::Conf;
use super::message::{Answer, Question};
use crate::layer::base::Base;
use crate::names::{self, DNS_PORT};

/// Answers that may wait: a retry's, or a liar's.
const WAITING: usize = 8;

/// The name servers of the target.
pub(super) struct Servers<'a> {
    pub(super) base: &'a Base,
    pub(super) conf: &'a Conf,
}

impl Servers<'_> {
    /// Asks one after the other, as often as resolv.conf says; then the name server of this
    /// machine's engine, if the name is not known.
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, Cause> {
        let answer = self.ask_targets(question).await;
        let unknown = match &answer {
            Ok(answer) => names::failed(&answer.bytes),
            Err(_) => true,
        };
        if self.base.names().embedded && unknown {
            let embedded = names::ask_embedded(&question.bytes).await;
            if let Some(bytes) = embedded {
                return Ok(Answer { bytes });
            }
        }
        answer
    }

    async fn ask_targets(&self, question: &Question) -> Result<Answer, Cause> {
        let tunnel = self.base.tunnel().await.ok_or(Cause::TryAgain)?;
        let mut unhelpful = None;
        // Without any, the resolver asks its own host.
        let own = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let servers = match self.conf.servers.as_slice() {
            [] => &own,
            servers => servers,
        };
        for _ in 0..self.conf.attempts {
            for server in servers {
                let server = SocketAddr::new(*server, DNS_PORT);
                let asked = self.ask_one(&tunnel, server, question);
                let answer = tokio::time::timeout(self.conf.timeout, asked).await;
                match answer.ok().flatten() {
                    Some(answer) if answer.is_no_help() => unhelpful = Some(answer),
                    Some(answer) => return Ok(answer),
                    None => {}
                }
            }
        }
        unhelpful.ok_or(Cause::TryAgain)
    }

    async fn ask_one(
        &self,
        tunnel: &Tunnel,
        server: SocketAddr,
        question: &Question,
    ) -> Option<Answer> {
        if !self.conf.tcp {
            let answer = by_datagram(tunnel, server, question).await?;
            if !answer.is_truncated() {
                return Some(answer);
            }
        }
        self.by_stream(tunnel, server, question).await.ok()
    }

    async fn by_stream(
        &self,
        tunnel: &Tunnel,
        server: SocketAddr,
        question: &Question,
    ) -> io::Result<Answer> {
        let stream = tunnel.open(Open::Connect(Protocol::Tcp, OrigDst(server)));
        let (mut ours, theirs) = pair().await?;
        let relay = self.base.link.tasks.spawn_local(stream.relay(theirs, Answers::Sent));
        let mut bytes = BytesMut::new();
        bytes.put_u16(u16::try_from(question.bytes.len()).map_err(io::Error::other)?);
        bytes.put_slice(&question.bytes);
        ours.write_all(&bytes).await?;
        let mut answer = vec![0; ours.read_u16().await?.into()];
        ours.read_exact(&mut answer).await?;
        relay.abort();
        let answer = Answer { bytes: answer.into() };
        match question.is_answered_by(&answer) {
            true => Ok(answer),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

async fn by_datagram(tunnel: &Tunnel, server: SocketAddr, question: &Question) -> Option<Answer> {
    let stream: Stream = tunnel.open(Open::Connect(Protocol::Udp, OrigDst(server)));
    let (answer_tx, mut answer_rx) = mpsc::channel::<Bytes>(WAITING);
    stream.on_datagram(move |bytes| {
        let _ = answer_tx.try_send(bytes);
    });
    stream.send_datagram(&question.bytes);
    loop {
        let bytes = tokio::select! {
            bytes = answer_rx.recv() => bytes?,
            () = stream.broken() => return None,
        };
        let answer = Answer { bytes };
        if question.is_answered_by(&answer) {
            return Some(answer);
        }
    }
}

/// Two ends of a connection on loopback: a stream of the tunnel relays to a socket alone.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    loop {
        let (theirs, from) = listener.accept().await?;
        if from == ours.local_addr()? {
            return Ok((ours, theirs));
        }
    }
}
