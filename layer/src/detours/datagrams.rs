//! sendto(2), sendmsg(2), recvmsg(2) and their likes.

use core::net::SocketAddr;

use mirrord_protocol::layer::{Request, Slot, Status, Transport};

use super::connect::refused;
use super::destination::{Destination, allow_mapped, own_socket};
use super::reported::{Report, instead_of};
use super::{Call, Kernel, seen, transport};
use crate::address::{Family, LARGEST, SockAddr, given};
use crate::page::{Page, Presence, presence};
use crate::proxy;
use crate::settings::settings;
use crate::sys::{Errno, NameBuffer};

/// The most messages of one call that the kernel takes (UIO_MAXIOV).
const MOST_MESSAGES: usize = 1024;

/// A msghdr (recvmsg(2)), as words: what a libc has as padding is left as it is.
type Message = [usize; 7];
const NAME: usize = 0;
const NAME_LEN: usize = 1;
const CONTROL_LEN: usize = 5;
const FLAGS: usize = 6;

/// A mmsghdr (recvmmsg(2)).
#[repr(C)]
struct Counted {
    message: Message,
    len: u32,
}

/// The slot of a remote address and its port; `None` if the app is to send there itself.
pub fn peer(page: &Page, remote: SocketAddr) -> Result<Option<(Slot, u16)>, Errno> {
    if let Some(known) = page.datagram(remote) {
        return Ok(Some(known));
    }
    let reply = proxy::ask(&Request::Peer { remote }, None, &mut [])?.reply;
    match reply.status {
        Status::Done => Ok(Some((reply.slot(), reply.port))),
        Status::Direct => Ok(None),
        Status::Refused => Err(refused(&reply)),
    }
}

/// Where a message really goes to; `None` if it is where the app says.
fn really_to(
    fd: i32,
    (family, address): (Family, SocketAddr),
    flags: usize,
) -> Result<Option<SockAddr>, Errno> {
    let page = match presence() {
        Presence::Absent => return Ok(None),
        Presence::Unreachable(errno) => Err(errno),
        Presence::Active(page) => Ok(page),
    };
    let opens = flags & libc::MSG_FASTOPEN as usize != 0;
    match (Destination::of(address), transport(fd)) {
        (Destination::Link, _) | (_, None) => Ok(None),
        (_, Some(Transport::Tcp)) if !opens => Ok(None),
        (Destination::Loopback, Some(transport)) => {
            Ok(page.ok().and_then(|page| own_socket(page, transport, address, family)))
        }
        (Destination::Network(_), Some(Transport::Tcp)) => Err(Errno(libc::EOPNOTSUPP)),
        (Destination::Network(remote), Some(Transport::Udp)) => {
            let slot = peer(page?, remote)?;
            Ok(slot.and_then(|(slot, port)| {
                SockAddr::new(SocketAddr::new(slot.remote().into(), port), family)
            }))
        }
    }
}

/// Makes a call that sends, again if an IPv6 socket had to learn IPv4 first.
unsafe fn send<K: Kernel>(
    kernel: K,
    call: Call,
    arguments: [usize; 6],
    family: Family,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    match unsafe { kernel.call(call, arguments) } {
        Err(Errno::UNREACHABLE) if family == Family::V6 => {
            let [fd, ..] = arguments;
            allow_mapped(fd as i32, family);
            // SAFETY: the caller's promise.
            unsafe { kernel.call(call, arguments) }
        }
        result => result,
    }
}

/// sendto(2)
pub unsafe fn sendto<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [fd, bytes, count, flags, address, len] = arguments;
    // SAFETY: the caller's promise.
    let given = unsafe { given(address, len) }.filter(|_| settings().is_some());
    let instead = match given {
        Some(given) => really_to(fd as i32, given, flags)?.map(|address| (address, given.0)),
        None => None,
    };
    match instead {
        // SAFETY: the caller's promise.
        None => unsafe { kernel.call(Call::SendTo, arguments) },
        Some((address, family)) => {
            let address = address.as_bytes();
            let own = [fd, bytes, count, flags, address.as_ptr() as usize, address.len()];
            // SAFETY: the caller's promise; the address is ours.
            unsafe { send(kernel, Call::SendTo, own, family) }
        }
    }
}

/// sendmsg(2)
pub unsafe fn sendmsg<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [fd, message, flags, ..] = arguments;
    let instead = if message == 0 || settings().is_none() {
        None
    } else {
        // SAFETY: the caller's promise: a message that is not null can be read.
        let message = unsafe { (message as *const Message).read_unaligned() };
        // SAFETY: as above.
        match unsafe { name_of(&message) } {
            Some(given) => really_to(fd as i32, given, flags)?.map(|name| (message, name, given.0)),
            None => None,
        }
    };
    match instead {
        // SAFETY: the caller's promise.
        None => unsafe { kernel.call(Call::SendMsg, arguments) },
        Some((mut message, name, family)) => {
            let name = name.as_bytes();
            message[NAME] = name.as_ptr() as usize;
            message[NAME_LEN] = name.len();
            let own = [fd, (&raw const message) as usize, flags, 0, 0, 0];
            // SAFETY: the caller's promise; the address is ours.
            unsafe { send(kernel, Call::SendMsg, own, family) }
        }
    }
}

/// Where a message is to go to, if that may concern us.
unsafe fn name_of(message: &Message) -> Option<(Family, SocketAddr)> {
    // SAFETY: the caller's promise; the length is an int.
    unsafe { given(message[NAME], message[NAME_LEN] as u32 as usize) }
}

/// sendmmsg(2): one after the other, if any of them says where it goes to.
pub unsafe fn sendmmsg<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [fd, messages, count, flags, ..] = arguments;
    let count = (count as u32 as usize).min(MOST_MESSAGES);
    let place = |at| (messages as *mut Counted).wrapping_add(at);
    // SAFETY: the caller's promise: so many messages can be read.
    let names = |at| unsafe { name_of(&(&raw const (*place(at)).message).read_unaligned()) };
    if messages == 0 || settings().is_none() || !(0..count).any(|at| names(at).is_some()) {
        // SAFETY: the caller's promise.
        return unsafe { kernel.call(Call::SendMmsg, arguments) };
    }
    for at in 0..count {
        let one = [fd, place(at) as usize, flags, 0, 0, 0];
        // SAFETY: the caller's promise: a mmsghdr begins with its msghdr.
        match unsafe { sendmsg(kernel, one) } {
            // SAFETY: as above, and the length can be written.
            Ok(sent) => unsafe { (&raw mut (*place(at)).len).write_unaligned(sent as u32) },
            Err(errno) if at == 0 => return Err(errno),
            Err(_) => return Ok(at),
        }
    }
    Ok(count)
}

/// recvmsg(2)
pub unsafe fn recvmsg<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [fd, place, flags, ..] = arguments;
    let place = place as *mut Message;
    // SAFETY: the caller's promise: a message that is not null can be read.
    let message = (!place.is_null()).then(|| unsafe { place.read_unaligned() });
    let named = message.filter(|it| it[NAME] != 0 && it[NAME_LEN] as i32 > 0);
    let Some(mut message) = named.filter(|_| settings().is_some()) else {
        // SAFETY: the caller's promise.
        return unsafe { kernel.call(Call::RecvMsg, arguments) };
    };
    let (name, room) = (message[NAME], message[NAME_LEN] as u32);
    let mut buffer = NameBuffer::new();
    message[NAME] = buffer.place();
    message[NAME_LEN] = LARGEST;
    let own = [fd, (&raw mut message) as usize, flags, 0, 0, 0];
    // SAFETY: the caller's promise, and a buffer of ours.
    let result = unsafe { kernel.call(Call::RecvMsg, own) }?;
    buffer.len = message[NAME_LEN] as u32;
    let report = Report::new(&buffer, |page, told| seen::remote(page, Transport::Udp, told));
    // SAFETY: the caller's promise: there is so much room, and the message can be written.
    unsafe {
        let len = report.copy_to(name, room);
        (&raw mut (*place)[NAME_LEN]).cast::<u32>().write_unaligned(len);
        (&raw mut (*place)[CONTROL_LEN]).write_unaligned(message[CONTROL_LEN]);
        (&raw mut (*place)[FLAGS]).cast::<u32>().write_unaligned(message[FLAGS] as u32);
    }
    Ok(result)
}

/// recvmmsg(2): the names are exchanged where they are; the new ones are as long.
pub unsafe fn recvmmsg<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [_, messages, count, ..] = arguments;
    let place = |at| (messages as *mut Counted).wrapping_add(at);
    let mut rooms = [0u8; MOST_MESSAGES];
    let mut named = false;
    if messages != 0 && settings().is_some() {
        for (at, room) in rooms.iter_mut().enumerate().take(count as u32 as usize) {
            // SAFETY: the caller's promise: so many messages can be read.
            let message = unsafe { (&raw const (*place(at)).message).read_unaligned() };
            if message[NAME] != 0 {
                *room = (message[NAME_LEN] as u32).min(LARGEST as u32) as u8;
                named = true;
            }
        }
    }
    // SAFETY: the caller's promise.
    let received = unsafe { kernel.call(Call::RecvMmsg, arguments) }?;
    if named {
        for (at, room) in rooms.into_iter().enumerate().take(received) {
            // SAFETY: the kernel has just written these messages and their names.
            unsafe { exchange_name(&(&raw const (*place(at)).message).read_unaligned(), room) };
        }
    }
    Ok(received)
}

/// Writes over the name of a message that was received, if there was room for it.
unsafe fn exchange_name(message: &Message, room: u8) {
    let len = (message[NAME_LEN] as u32 as usize).min(usize::from(room));
    // SAFETY: the caller's promise: so many bytes were written there.
    let bytes = unsafe { core::slice::from_raw_parts(message[NAME] as *const u8, len) };
    let translate = |page: &Page, told| seen::remote(page, Transport::Udp, told);
    if let Some(instead) = instead_of(bytes, translate) {
        let instead = instead.as_bytes();
        let fitting = instead.len().min(len);
        // SAFETY: the caller's promise; what is written is no longer than what was.
        unsafe {
            core::ptr::copy_nonoverlapping(instead.as_ptr(), message[NAME] as *mut u8, fitting);
        }
    }
}
