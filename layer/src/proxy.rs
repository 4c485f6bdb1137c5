//! Questions to the proxy: one connection each, closed at once, so that no descriptor of ours is
//! ever seen by the program.

use mirrord_protocol::layer::{REPLY_LEN, Reply, Request};

use crate::settings::{Settings, settings};
use crate::sys::{self, Errno, Fd};

/// Seconds after which a proxy that says nothing is taken for gone.
const PATIENCE: i64 = 60;
/// Bytes of a unix socket's address before the name: the family and a zero.
const NAME_AT: usize = 3;
/// Bytes of a sockaddr_un.
const LONGEST_ADDRESS: usize = 110;

/// What the proxy says.
#[derive(Debug)]
pub struct Answer {
    /// Its head.
    pub reply: Reply,
    /// The descriptor that came with it.
    pub fd: Option<Fd>,
    /// Bytes of the payload that the buffer holds; if there are more, they are lost.
    pub payload: usize,
}

/// Asks, and passes a descriptor along.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM and ENOBUFS as they are; [`Errno::UNREACHABLE`] if the proxy is gone.
pub fn ask(request: &Request, passed: Option<i32>, payload: &mut [u8]) -> Result<Answer, Errno> {
    let settings = settings().ok_or(Errno::UNREACHABLE)?;
    exchange(settings, request, passed, payload).map_err(as_unreachable)
}

/// What the app cannot help is one thing: there is no network.
fn as_unreachable(errno: Errno) -> Errno {
    match errno.0 {
        libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS => errno,
        // Of descriptors that are being passed (unix(7)).
        libc::ETOOMANYREFS => Errno(libc::ENOBUFS),
        _ => Errno::UNREACHABLE,
    }
}

fn exchange(
    settings: &Settings,
    request: &Request,
    passed: Option<i32>,
    payload: &mut [u8],
) -> Result<Answer, Errno> {
    let connection = reach(settings)?;
    send(&connection, &request.encode(settings.key()), passed)?;
    let mut head = [0; REPLY_LEN];
    let fd = receive(&connection, &mut head)?;
    let reply = Reply::decode(&head).map_err(|_| Errno::UNREACHABLE)?;
    let wanted = (reply.payload as usize).min(payload.len());
    let place = payload.get_mut(..wanted).unwrap_or_default();
    let late = receive(&connection, place)?;
    Ok(Answer { reply, fd: fd.or(late), payload: wanted })
}

fn reach(settings: &Settings) -> Result<Fd, Errno> {
    let connection = sys::socket(libc::AF_UNIX, libc::SOCK_STREAM)?;
    sys::set_patience(&connection, PATIENCE)?;
    let name = settings.name();
    let mut address = [0; LONGEST_ADDRESS];
    let family = (libc::AF_UNIX as u16).to_ne_bytes().into_iter();
    let bytes = family.chain([0]).chain(name.iter().copied());
    address.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    let used = address.get(..NAME_AT.wrapping_add(name.len())).unwrap_or_default();
    loop {
        match sys::connect(connection.number(), used) {
            Err(Errno(libc::EINTR)) => {}
            done => return done.map(|()| connection),
        }
    }
}

fn send(connection: &Fd, mut bytes: &[u8], mut passed: Option<i32>) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let sent = sys::send_with(connection, bytes, passed.take())?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

fn receive(connection: &Fd, mut place: &mut [u8]) -> Result<Option<Fd>, Errno> {
    let mut fd = None;
    while !place.is_empty() {
        let (received, came) = sys::receive(connection, place)?;
        fd = fd.or(came);
        place = match received {
            0 => return Err(Errno::UNREACHABLE),
            _ => place.get_mut(received..).unwrap_or_default(),
        };
    }
    Ok(fd)
}
