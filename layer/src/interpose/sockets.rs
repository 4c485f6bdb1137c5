//! The socket calls.

use core::ffi::{c_int, c_uint, c_void};

use super::{errno, set_errno};
use crate::detours::{Call, Kernel, Raw, detour};
use crate::sys::Errno;

/// libc's functions, or those of a library between it and us: they are cancellation points.
#[derive(Debug, Clone, Copy)]
struct Libc;

/// All of them take so few arguments that more do no harm, and return an int or a ssize_t.
type Function = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize) -> isize;

/// The function that makes a call, if there is one.
fn function(call: Call) -> Option<Function> {
    match call {
        Call::Socket => original!(socket: Function),
        Call::Bind => original!(bind: Function),
        Call::Listen => original!(listen: Function),
        Call::Connect => original!(connect: Function),
        Call::Accept => original!(accept: Function),
        Call::Accept4 => original!(accept4: Function),
        Call::GetSockName => original!(getsockname: Function),
        Call::GetPeerName => original!(getpeername: Function),
        Call::GetSockOpt => original!(getsockopt: Function),
        Call::SendTo => original!(sendto: Function),
        Call::SendMsg => original!(sendmsg: Function),
        Call::SendMmsg => original!(sendmmsg: Function),
        Call::RecvFrom => original!(recvfrom: Function),
        Call::RecvMsg => original!(recvmsg: Function),
        Call::RecvMmsg => original!(recvmmsg: Function),
    }
}

/// Whether a function returns a ssize_t, and not an int.
fn returns_size(call: Call) -> bool {
    matches!(call, Call::SendTo | Call::SendMsg | Call::RecvFrom | Call::RecvMsg)
}

impl Kernel for Libc {
    unsafe fn call(self, call: Call, arguments: [usize; 6]) -> Result<usize, Errno> {
        let Some(function) = function(call) else {
            // SAFETY: the caller's promise.
            return unsafe { Raw.call(call, arguments) };
        };
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the caller's promise.
        let value = unsafe { function(a, b, c, d, e, f) };
        let value = if returns_size(call) { value } else { value as c_int as isize };
        if value < 0 { Err(Errno(errno())) } else { Ok(value as usize) }
    }
}

/// A hook's result; `errno` is left as it was if there is none to be reported.
unsafe fn hooked(call: Call, arguments: [usize; 6]) -> isize {
    let before = errno();
    // SAFETY: the caller's promise.
    match unsafe { detour(Libc, call, arguments) } {
        Ok(value) => {
            set_errno(before);
            value as isize
        }
        Err(Errno(errno)) => {
            set_errno(errno);
            -1
        }
    }
}

macro_rules! hooks {
    ($($name:ident($($argument:ident: $kind:ty),+) -> $result:ty = $call:ident;)+) => {$(
        #[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
        pub(crate) unsafe extern "C" fn $name($($argument: $kind),+) -> $result {
            let mut arguments = [0; 6];
            let mut places = arguments.iter_mut();
            $(if let Some(place) = places.next() { *place = $argument as usize; })+
            // SAFETY: the app's promise to libc's function of this name.
            unsafe { hooked(Call::$call, arguments) as $result }
        }
    )+};
}

hooks! {
    socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int = Socket;
    bind(fd: c_int, address: *const c_void, len: c_uint) -> c_int = Bind;
    listen(fd: c_int, backlog: c_int) -> c_int = Listen;
    connect(fd: c_int, address: *const c_void, len: c_uint) -> c_int = Connect;
    __connect(fd: c_int, address: *const c_void, len: c_uint) -> c_int = Connect;
    accept(fd: c_int, address: *mut c_void, len: *mut c_uint) -> c_int = Accept;
    accept4(fd: c_int, address: *mut c_void, len: *mut c_uint, flags: c_int) -> c_int = Accept4;
    getsockname(fd: c_int, address: *mut c_void, len: *mut c_uint) -> c_int = GetSockName;
    getpeername(fd: c_int, address: *mut c_void, len: *mut c_uint) -> c_int = GetPeerName;
    getsockopt(fd: c_int, level: c_int, option: c_int, place: *mut c_void, len: *mut c_uint)
        -> c_int = GetSockOpt;
    sendto(fd: c_int, bytes: *const c_void, count: usize, flags: c_int, address: *const c_void,
        len: c_uint) -> isize = SendTo;
    sendmsg(fd: c_int, message: *const c_void, flags: c_int) -> isize = SendMsg;
    sendmmsg(fd: c_int, messages: *mut c_void, count: c_uint, flags: c_int) -> c_int = SendMmsg;
    recvfrom(fd: c_int, bytes: *mut c_void, count: usize, flags: c_int, address: *mut c_void,
        len: *mut c_uint) -> isize = RecvFrom;
    recvmsg(fd: c_int, message: *mut c_void, flags: c_int) -> isize = RecvMsg;
    recvmmsg(fd: c_int, messages: *mut c_void, count: c_uint, flags: c_int, timeout: *mut c_void)
        -> c_int = RecvMmsg;
}

/// recvfrom(2) of programs that were compiled with _FORTIFY_SOURCE; glibc ends those that
/// would read beyond the buffer.
#[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    bytes: *mut c_void,
    count: usize,
    room: usize,
    flags: c_int,
    address: *mut c_void,
    len: *mut c_uint,
) -> isize {
    type Checked = unsafe extern "C" fn(
        c_int,
        *mut c_void,
        usize,
        usize,
        c_int,
        *mut c_void,
        *mut c_uint,
    ) -> isize;
    if count > room
        && let Some(original) = original!(__recvfrom_chk: Checked)
    {
        // SAFETY: the app's promise.
        return unsafe { original(fd, bytes, count, room, flags, address, len) };
    }
    // SAFETY: the app's promise.
    unsafe { recvfrom(fd, bytes, count, flags, address, len) }
}
