//! Unix sockets of the target: connect(2), and whom getpeername(2) and its likes name.
//!
//! The proxy answers when the target's socket has, and the app's socket then connects to one of the
//! proxy's, in whose name stands which one it stands for.

use mirrord_protocol::layer::{Request, Status, UNIX_SUFFIX, page as layout};
use mirrord_protocol::layer::{unix_number, unix_stand_in};
use mirrord_protocol::unix::{UnixKind, UnixName};

use super::connect::refused;
use super::{Call, Kernel};
use crate::address::SockAddr;
use crate::page;
use crate::proxy;
use crate::settings::{Settings, settings};
use crate::sys::{self, Errno};

/// The socket that an app asks for, if the proxy is to be asked about it.
pub fn wanted(fd: i32, address: &[u8]) -> Option<(UnixKind, UnixName)> {
    let name = UnixName::new(name_in(address)?)?;
    let settings = settings()?;
    let option = |name| sys::getsockopt_int(fd, libc::SOL_SOCKET, name).ok();
    let kind = UnixKind::of(u8::try_from(option(libc::SO_TYPE)?).ok()?)?;
    let is_ours = number(settings, name.as_bytes()).is_some();
    (!is_ours && page::unix().is_some()).then_some((kind, name))
}

/// connect(2); `original` connects where the app says.
pub fn connect<K: Kernel>(
    kernel: K,
    fd: i32,
    (kind, name): (UnixKind, UnixName),
    original: impl FnOnce() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let Some(settings) = settings() else { return original() };
    if let Some(peer) = sys::getpeername(fd) {
        // The kernel looks for the name first, which need not be here.
        let is_ours = name_in(peer.as_bytes()).is_some_and(|it| number(settings, it).is_some());
        return if is_ours { Err(Errno(libc::EISCONN)) } else { original() };
    }
    let reply = match proxy::ask(&Request::Unix { kind, name }, None, &mut []) {
        Ok(answer) => answer.reply,
        // There is no session any more.
        Err(Errno::UNREACHABLE) => return Err(Errno(libc::ECONNREFUSED)),
        Err(errno) => return Err(errno),
    };
    match reply.status {
        Status::Direct => original(),
        Status::Refused => Err(refused(&reply)),
        Status::Done => {
            let suffix = unix_stand_in(reply.value);
            let address = SockAddr::unix(&[b"\0", settings.name(), &suffix]);
            let bytes = address.as_bytes();
            let arguments = [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
            // SAFETY: the bytes are read.
            unsafe { kernel.call(Call::Connect, arguments) }
        }
    }
}

/// The address that one of the proxy's stands for.
pub fn instead(address: &[u8]) -> Option<SockAddr> {
    let number = number(settings()?, name_in(address)?)?;
    let mut entry = [0; layout::UNIX_LEN];
    let name = page::unix()?.unix_name(number, &mut entry)?;
    let end: &[u8] = if name.starts_with(b"\0") { b"" } else { b"\0" };
    Some(SockAddr::unix(&[name, end]))
}

/// What stands behind the family of a unix socket's address.
fn name_in(address: &[u8]) -> Option<&[u8]> {
    let (family, name) = address.split_first_chunk::<2>()?;
    (i32::from(u16::from_ne_bytes(*family)) == libc::AF_UNIX).then_some(name)
}

/// The number in a name of the proxy's.
fn number(settings: &Settings, name: &[u8]) -> Option<u32> {
    let suffix = name.strip_prefix(b"\0")?.strip_prefix(settings.name())?;
    (suffix.len() == UNIX_SUFFIX).then(|| unix_number(suffix)).flatten()
}
