//! The kernel, without a libc: system calls behind safe names, and the program's first instruction.

#![allow(unsafe_code)]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the starter knows the system calls of x86_64 alone");

mod begin;
#[cfg(feature = "program")]
mod memory;
mod number;

use core::arch::asm;

pub use begin::Start;

const CLOEXEC: usize = 0o2_000_000;
const NONBLOCK: usize = 0o4_000;
const AF_INET: u16 = 2;
const SOCK_STREAM: usize = 1;
const SOL_SOCKET: usize = 1;
const SO_REUSEADDR: usize = 2;
const MSG_NOSIGNAL: usize = 0x4000;
const SHUT_WR: usize = 1;
const F_GETFL: usize = 3;
const F_SETFD: usize = 2;
const F_SETFL: usize = 4;
const F_DUPFD_CLOEXEC: usize = 1030;
const FD_CLOEXEC: usize = 1;
const CLOCK_MONOTONIC: usize = 1;
const MFD_CLOEXEC: usize = 1;
const MFD_EXEC: usize = 0x10;
const AT_EMPTY_PATH: usize = 0x1000;
const AT_EXECVE_CHECK: usize = 0x1_0000;
const CLOSE_RANGE_CLOEXEC: usize = 4;
const SIGINT: usize = 2;
const SIGPIPE: usize = 13;
const SIGTERM: usize = 15;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const SA_RESTORER: usize = 0x0400_0000;
/// The first descriptor that the program does not get from us.
const FIRST_OTHER: usize = 4;
/// Ours stand from here on, so that none is in the place of one that the program gets.
const FIRST_OWN: usize = 10;

/// Readable; as `poll` reports it together with errors and hang-ups.
const READABLE: i16 = 1;

/// Why the kernel refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u16);

impl Errno {
    /// Nothing there yet.
    pub const AGAIN: Self = Self(11);
    /// An argument that this kernel does not know.
    pub const INVALID: Self = Self(22);
    /// The port is taken.
    pub const ADDRESS_IN_USE: Self = Self(98);

    /// Its name, for those that are likely.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "EPERM",
            7 => "E2BIG",
            8 => "ENOEXEC",
            12 => "ENOMEM",
            13 => "EACCES",
            22 => "EINVAL",
            26 => "ETXTBSY",
            28 => "ENOSPC",
            38 => "ENOSYS",
            98 => "EADDRINUSE",
            _ => "errno",
        }
    }
}

/// One system call.
///
/// # Safety
///
/// What the kernel does with the arguments must be sound: pointers valid for what the call reads
/// or writes, descriptors ours to use.
unsafe fn call<const N: usize>(number: usize, arguments: [usize; N]) -> Result<usize, Errno> {
    let mut all = [0; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = argument;
    }
    // SAFETY: the caller's promise.
    let answer = unsafe { raw(number, all) };
    if answer < 0 { Err(Errno(answer.unsigned_abs() as u16)) } else { Ok(answer.unsigned_abs()) }
}

unsafe fn raw(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let answer;
    // SAFETY: the kernel's calling convention; it changes rax, rcx and r11 alone.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    answer
}

/// An open descriptor of ours.
pub struct Fd(usize);

impl Fd {
    /// Takes a descriptor that the kernel has just made, to where ours stand.
    fn moved(made: usize) -> Result<Self, Errno> {
        let made = Self(made);
        // SAFETY: no pointer.
        unsafe { call(number::FCNTL, [made.0, F_DUPFD_CLOEXEC, FIRST_OWN]) }.map(Self)
    }

    fn set_blocking(&self, blocking: bool) {
        // SAFETY: no pointer; the flags of an open file of ours.
        unsafe {
            let flags = call(number::FCNTL, [self.0, F_GETFL]).unwrap_or(0);
            let flags = if blocking { flags & !NONBLOCK } else { flags | NONBLOCK };
            let _ = call(number::FCNTL, [self.0, F_SETFL, flags]);
        }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        close(self.0);
    }
}

fn close(fd: usize) {
    // SAFETY: no pointer; nobody else has the number.
    let _ = unsafe { call(number::CLOSE, [fd]) };
}

/// Milliseconds on a clock that only goes on.
pub fn now_ms() -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: a timespec is two such numbers.
    let _ = unsafe { call(number::CLOCK_GETTIME, [CLOCK_MONOTONIC, (&raw mut time) as usize]) };
    time[0] * 1_000 + time[1] / 1_000_000
}

/// A socket that listens on 127.0.0.1, and does not make who accepts wait.
pub fn listen(port: u16) -> Result<Fd, Errno> {
    let kind = SOCK_STREAM | CLOEXEC | NONBLOCK;
    // SAFETY: no pointer.
    let made = unsafe { call(number::SOCKET, [usize::from(AF_INET), kind, 0]) }?;
    let fd = Fd::moved(made)?;
    let one = 1u32;
    let mut address = [0u8; 16];
    address[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    // SAFETY: an int of four bytes and a sockaddr_in of sixteen.
    unsafe {
        call(number::SETSOCKOPT, [fd.0, SOL_SOCKET, SO_REUSEADDR, (&raw const one) as usize, 4])?;
        call(number::BIND, [fd.0, (&raw const address) as usize, address.len()])?;
        call(number::LISTEN, [fd.0, 64])?;
    }
    Ok(fd)
}

/// The next connection, which does not make who reads wait.
pub fn accept(listener: &Fd) -> Result<Fd, Errno> {
    // SAFETY: null pointers are allowed and say that no address is wanted.
    let made = unsafe { call(number::ACCEPT4, [listener.0, 0, 0, CLOEXEC | NONBLOCK]) }?;
    Fd::moved(made)
}

/// Reads what is there; 0 at the end.
pub fn read(fd: &Fd, bytes: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the slice is ours to write.
    unsafe { call(number::READ, [fd.0, bytes.as_mut_ptr() as usize, bytes.len()]) }
}

/// Says something short; a peer that takes no more, or is gone, misses it.
pub fn say(peer: &Fd, bytes: &[u8]) {
    // SAFETY: the slice is read.
    let _ = unsafe {
        call(number::SENDTO, [peer.0, bytes.as_ptr() as usize, bytes.len(), MSG_NOSIGNAL, 0, 0])
    };
}

/// Says that nothing more will be said.
pub fn fall_silent(peer: &Fd) {
    // SAFETY: no pointer.
    let _ = unsafe { call(number::SHUTDOWN, [peer.0, SHUT_WR]) };
}

/// Writes to standard error.
pub fn complain(bytes: &[u8]) {
    // SAFETY: the slice is read.
    let _ = unsafe { call(number::WRITE, [2, bytes.as_ptr() as usize, bytes.len()]) };
}

/// What `poll` is asked about one descriptor, and answers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Interest {
    fd: i32,
    asked: i16,
    found: i16,
}

impl Interest {
    /// In nothing.
    pub const NONE: Self = Self { fd: -1, asked: 0, found: 0 };

    /// In what comes from this descriptor, if it is one.
    pub fn in_what_comes(fd: Option<&Fd>) -> Self {
        // A descriptor is never larger than an int.
        fd.map_or(Self::NONE, |fd| Self { fd: fd.0 as i32, asked: READABLE, found: 0 })
    }

    /// Whether reading would not wait: there are bytes, an end or an error.
    pub fn found(&self) -> bool {
        self.found != 0
    }
}

/// Waits until one of them has something, or the time is over.
pub fn wait(interests: &mut [Interest], most_ms: u64) {
    let time = [most_ms / 1_000, most_ms % 1_000 * 1_000_000];
    let (first, count) = (interests.as_mut_ptr() as usize, interests.len());
    // SAFETY: a pollfd has the form of `Interest`; a timespec is two such numbers.
    let _ = unsafe { call(number::PPOLL, [first, count, (&raw const time) as usize, 0, 0]) };
}

/// A file in memory that may be executed.
pub fn memory_file() -> Result<Fd, Errno> {
    let name = c"mirrord".as_ptr() as usize;
    let make = |flags| {
        // SAFETY: the name ends with a zero.
        unsafe { call(number::MEMFD_CREATE, [name, flags]) }
    };
    match make(MFD_CLOEXEC | MFD_EXEC) {
        Err(Errno::INVALID) => make(MFD_CLOEXEC),
        made => made,
    }
    .and_then(Fd::moved)
}

/// Writes all of it to a file.
pub fn write_all(file: &Fd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: the slice is read.
        let written =
            unsafe { call(number::WRITE, [file.0, bytes.as_ptr() as usize, bytes.len()]) }?;
        bytes = bytes.get(written..).unwrap_or(&[]);
    }
    Ok(())
}

/// Whether the kernel would execute a file, where it can say so beforehand (Linux 6.14).
pub fn may_execute(program: &Fd) -> Result<(), Errno> {
    let flags = AT_EMPTY_PATH | AT_EXECVE_CHECK;
    // SAFETY: an empty path; null lists count as empty, and nothing is executed.
    let asked = unsafe {
        let nothing = c"".as_ptr() as usize;
        call(number::EXECVEAT, [program.0, nothing, 0, 0, flags])
    };
    match asked {
        Ok(_) | Err(Errno::INVALID) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Becomes `mirrord agent`, with the peer as standard input and output and the listener as
/// descriptor 3. Returns if the kernel refuses; then all is as before.
pub fn become_agent(program: &Fd, peer: &Fd, listener: &Fd, start: &Start) -> Errno {
    let given = [(peer, 0), (peer, 1), (listener, 3)];
    for (fd, place) in given {
        fd.set_blocking(true);
        // SAFETY: no pointer; ours stand above these places.
        let _ = unsafe { call(number::DUP3, [fd.0, place, 0]) };
    }
    close_others_later();
    dispose(SIGPIPE, SIG_DFL);
    let words = [c"mirrord".as_ptr(), c"agent".as_ptr(), core::ptr::null()];
    // SAFETY: an empty path, a list that ends with null, and the environment we were given.
    let refused = unsafe {
        let nothing = c"".as_ptr() as usize;
        let lists = [words.as_ptr() as usize, start.environment as usize];
        call(number::EXECVEAT, [program.0, nothing, lists[0], lists[1], AT_EMPTY_PATH])
    };
    dispose(SIGPIPE, SIG_IGN);
    for (fd, place) in given {
        fd.set_blocking(false);
        close(place);
    }
    refused.err().unwrap_or(Errno::INVALID)
}

/// Lets go, when the program is executed, of what it is not to have.
fn close_others_later() {
    // SAFETY: no pointer; descriptors stay open until then.
    let done =
        unsafe { call(number::CLOSE_RANGE, [FIRST_OTHER, u32::MAX as usize, CLOSE_RANGE_CLOEXEC]) };
    if done.is_err() {
        for fd in FIRST_OTHER..1024 {
            // SAFETY: as above.
            let _ = unsafe { call(number::FCNTL, [fd, F_SETFD, FD_CLOEXEC]) };
        }
    }
}

/// Makes a lost reader harmless, and SIGTERM and SIGINT an end even for a namespace's first
/// process, which has no default for them.
pub fn set_signals() {
    dispose(SIGPIPE, SIG_IGN);
    for signal in [SIGTERM, SIGINT] {
        dispose(signal, leave as *const () as usize);
    }
}

/// Sets what a signal does.
fn dispose(signal: usize, handler: usize) {
    // The handler never returns, so that nothing stands behind what would restore.
    let action = [handler, SA_RESTORER, leave as *const () as usize, 0];
    // SAFETY: the kernel's sigaction with a mask of eight bytes; the handler touches no memory.
    let _ = unsafe {
        call(number::RT_SIGACTION, [signal, (&raw const action) as usize, 0, size_of::<u64>()])
    };
}

extern "C" fn leave(_signal: i32) -> ! {
    exit(crate::wire::ENDED)
}

/// Ends the process.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: no pointer.
        let _ = unsafe { call(number::EXIT_GROUP, [code as usize]) };
    }
}
