//! One question of a process: received with its descriptor, answered with one.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mirrord_protocol::layer::{
    Cause, DecodeError, KEY_LEN, MAX_PAYLOAD, REQUEST_LEN, Reply, Request, Status,
};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{UnixCredentials, getsockopt};
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::task::yield_now;

/// Who does not read the answer is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// So often others have their turn before the reactor is asked to watch a process.
const SPELL: usize = 2;

/// Why a question came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The socket failed.
    #[error("the connection of a process failed")]
    Socket(#[from] io::Error),
    /// It was closed before all was said.
    #[error("a question broke off")]
    Cut,
    /// Nothing came in time, or the answer was not read.
    #[error("a process was silent for too long")]
    Silent,
    /// The key is wrong.
    #[error("somebody asked who is not of this session")]
    Stranger,
    /// The bytes make no sense.
    #[error("a question makes no sense")]
    Decode(#[from] DecodeError),
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) descriptor: Option<OwnedFd>,
    socket: UnixStream,
}

/// What a process hears.
#[derive(Debug)]
pub(crate) struct Answer {
    reply: Reply,
    payload: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

impl Answer {
    /// Done, with this value.
    pub(crate) fn done(value: u32) -> Self {
        Self::of(Reply::new(Status::Done, value))
    }

    /// Not our concern.
    pub(crate) fn direct() -> Self {
        Self::of(Reply::new(Status::Direct, 0))
    }

    /// Refused with this errno.
    pub(crate) fn refused(errno: i32) -> Self {
        Self::of(Reply::new(Status::Refused, errno.unsigned_abs()))
    }

    /// A name has no answer.
    pub(crate) fn unknown(cause: Cause) -> Self {
        Self::of(Reply::new(Status::Refused, cause as u32))
    }

    /// Refused with the errno of a system call that failed.
    pub(crate) fn failed(error: &io::Error) -> Self {
        Self::refused(error.raw_os_error().unwrap_or(nix::libc::EIO))
    }

    /// Done, with bytes; those that are too many can't be carried.
    pub(crate) fn payload(payload: Vec<u8>) -> Self {
        match u32::try_from(payload.len()) {
            Ok(len) if payload.len() <= MAX_PAYLOAD => {
                let reply = Reply { payload: len, ..Reply::new(Status::Done, 0) };
                Self { payload, ..Self::of(reply) }
            }
            _ => Self::unknown(Cause::Failed),
        }
    }

    /// With a port.
    pub(crate) fn at(mut self, port: u16) -> Self {
        self.reply.port = port;
        self
    }

    /// With a descriptor.
    pub(crate) fn with(mut self, descriptor: OwnedFd) -> Self {
        self.descriptor = Some(descriptor);
        self
    }

    fn of(reply: Reply) -> Self {
        Self { reply, payload: Vec::new(), descriptor: None }
    }
}

impl Call {
    /// Reads a question that shows the key.
    pub(crate) async fn receive(
        mut socket: UnixStream,
        key: &[u8; KEY_LEN],
    ) -> Result<Self, CallError> {
        let (mut bytes, mut len, mut descriptor) = ([0; REQUEST_LEN], 0, None);
        while len < REQUEST_LEN {
            let some = |from: BorrowedFd<'_>| receive_some(from, &mut bytes[len..]);
            let (back, read) = patiently(socket, Interest::READABLE, some).await?;
            socket = back;
            if read.len == 0 {
                return Err(CallError::Cut);
            }
            len += read.len;
            descriptor = descriptor.or(read.descriptor);
        }
        let (shown, request) = Request::decode(&bytes)?;
        if !is_same(&shown, key) {
            return Err(CallError::Stranger);
        }
        Ok(Self { request, descriptor, socket })
    }

    /// Which process asks.
    pub(crate) fn asker(&self) -> nix::Result<UnixCredentials> {
        getsockopt(&self.socket, PeerCredentials)
    }

    /// Answers, and closes the connection.
    pub(crate) async fn answer(self, answer: Answer) -> Result<(), CallError> {
        let mut bytes = answer.reply.encode().to_vec();
        bytes.extend_from_slice(&answer.payload);
        let sending = send(self.socket, &bytes, answer.descriptor.as_ref());
        let sent = tokio::time::timeout(PATIENCE, sending).await;
        Ok(sent.map_err(|_| CallError::Silent)??)
    }
}

async fn send(
    mut socket: UnixStream,
    mut bytes: &[u8],
    mut descriptor: Option<&OwnedFd>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let some = |to: BorrowedFd<'_>| send_some(to, bytes, descriptor);
        let (back, sent) = patiently(socket, Interest::WRITABLE, some).await?;
        socket = back;
        bytes = &bytes[sent..];
        descriptor = None;
    }
    Ok(())
}

/// Acts as soon as the socket lets it. Mostly that is at once, and the reactor need not hear of a
/// socket that is about to be closed.
async fn patiently<T>(
    socket: UnixStream,
    interest: Interest,
    mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
) -> io::Result<(UnixStream, T)> {
    for _ in 0..=SPELL {
        match act(socket.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => yield_now().await,
            done => return done.map(|done| (socket, done)),
        }
    }
    socket.set_nonblocking(true)?;
    let watched = tokio::net::UnixStream::from_std(socket)?;
    let done = watched.async_io(interest, || act(watched.as_fd())).await?;
    Ok((watched.into_std()?, done))
}

struct Part {
    len: usize,
    descriptor: Option<OwnedFd>,
}

fn receive_some(from: impl AsFd, room: &mut [u8]) -> io::Result<Part> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(from, &mut [IoSliceMut::new(room)], &mut control, flags)?;
    let mut rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = rights.next().and_then(|mut descriptors| descriptors.next());
    Ok(Part { len: message.bytes, descriptor })
}

fn send_some(to: impl AsFd, bytes: &[u8], descriptor: Option<&OwnedFd>) -> io::Result<usize> {
    let descriptors = descriptor.map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if let Some(descriptor) = &descriptors {
        rights.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(descriptor)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(to, &[IoSlice::new(bytes)], &mut rights, flags)?)
}

/// Takes as long whatever differs.
fn is_same(a: &[u8; KEY_LEN], b: &[u8; KEY_LEN]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    const KEY: [u8; KEY_LEN] = [7; KEY_LEN];

    #[tokio::test]
    async fn a_question_in_pieces_is_put_together() {
        let (mut app, proxy) = UnixStream::pair().unwrap();
        let bytes = Request::Listen { fake: 4711 }.encode(&KEY);
        let receiving = tokio::spawn(async move { Call::receive(proxy, &KEY).await });
        for part in bytes.chunks(100) {
            app.write_all(part).unwrap();
            tokio::task::yield_now().await;
        }
        let call = receiving.await.unwrap().unwrap();
        assert_eq!(call.request, Request::Listen { fake: 4711 });
        call.answer(Answer::done(5).at(80)).await.unwrap();
        let mut reply = [0; mirrord_protocol::layer::REPLY_LEN];
        app.read_exact(&mut reply).unwrap();
        let expected = Reply { port: 80, ..Reply::new(Status::Done, 5) };
        assert_eq!(Reply::decode(&reply).unwrap(), expected);
    }

    #[tokio::test]
    async fn descriptors_travel_both_ways() {
        let (app, proxy) = UnixStream::pair().unwrap();
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert_eq!(send_some(&app, &Request::Exec.encode(&KEY), Some(&file)).unwrap(), REQUEST_LEN);
        let mut call = Call::receive(proxy, &KEY).await.unwrap();
        let received = call.descriptor.take().unwrap();
        assert_ne!(received.as_raw_fd(), file.as_raw_fd());
        call.answer(Answer::done(0).with(received)).await.unwrap();
        let mut reply = [0; 64];
        let part = receive_some(&app, &mut reply).unwrap();
        assert!(part.descriptor.is_some());
        assert_eq!(part.len, mirrord_protocol::layer::REPLY_LEN);
    }

    #[tokio::test]
    async fn who_shows_another_key_or_no_question_is_turned_away() {
        let turned_away = async |bytes: &[u8]| {
            let (mut app, proxy) = UnixStream::pair().unwrap();
            app.write_all(bytes).unwrap();
            drop(app);
            Call::receive(proxy, &KEY).await.unwrap_err().to_string()
        };
        let stranger = turned_away(&Request::Map.encode(&[8; KEY_LEN])).await;
        assert_eq!(stranger, "somebody asked who is not of this session");
        let mut nonsense = Request::Map.encode(&KEY);
        nonsense[KEY_LEN] = 0xff;
        assert_eq!(turned_away(&nonsense).await, "a question makes no sense");
        assert_eq!(turned_away(&KEY).await, "a question broke off");
    }
}
