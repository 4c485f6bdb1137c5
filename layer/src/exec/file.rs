//! A program's file, opened to be looked at.

use core::ffi::{CStr, c_char};

use super::program::Source;
use crate::sys::{self, Errno, Fd};

/// A program as execveat(2) names it.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    folder: i32,
    path: *const c_char,
    flags: usize,
}

/// Bytes of `/proc/`, two numbers and what is between them.
pub const LINK_LEN: usize = 40;

impl Program {
    /// As execve(2) names it.
    pub fn at(path: *const c_char) -> Self {
        Self { folder: libc::AT_FDCWD, path, flags: 0 }
    }

    /// As fexecve(3) names it.
    pub fn open(fd: i32) -> Self {
        Self { folder: fd, path: c"".as_ptr(), flags: libc::AT_EMPTY_PATH as usize }
    }

    /// As execveat(2) names it.
    pub fn below(folder: i32, path: *const c_char, flags: i32) -> Self {
        Self { folder, path, flags: flags as usize }
    }

    /// The path, unless it is null or empty.
    pub fn path(&self) -> Option<&CStr> {
        if self.path.is_null() {
            return None;
        }
        // SAFETY: whoever executes a program has its path at hand.
        Some(unsafe { CStr::from_ptr(self.path) }).filter(|path| !path.is_empty())
    }

    /// Whether a script that it is gets the path that it was called by.
    pub fn is_plain(&self) -> bool {
        self.folder == libc::AT_FDCWD && self.path().is_some()
    }

    /// Executes it; what it returns is the kernel's error.
    ///
    /// # Safety
    /// As execve(2).
    pub unsafe fn run(
        &self,
        arguments: *const *const c_char,
        environment: *const *const c_char,
    ) -> Errno {
        let (arguments, environment) = (arguments as usize, environment as usize);
        // SAFETY: the caller's.
        let done = unsafe {
            if self.folder == libc::AT_FDCWD && self.flags == 0 {
                sys::call(libc::SYS_execve, [self.path as usize, arguments, environment])
            } else {
                let (folder, path) = (self.folder as usize, self.path as usize);
                let all = [folder, path, arguments, environment, self.flags];
                sys::call(libc::SYS_execveat, all)
            }
        };
        match done {
            Err(Errno(libc::ENOSYS)) if self.path().is_none() => {
                let mut link = [0; LINK_LEN];
                let path = write_link(b"self", self.folder, &mut link).as_ptr() as usize;
                // SAFETY: the caller's. Linux before 3.19 has no execveat(2).
                let done = unsafe { sys::call(libc::SYS_execve, [path, arguments, environment]) };
                done.err().unwrap_or(Errno(libc::ENOSYS))
            }
            done => done.err().unwrap_or(Errno(libc::ENOSYS)),
        }
    }
}

/// The path by which a process's descriptor is reached: proc(5).
pub fn write_link<'a>(process: &[u8], fd: i32, link: &'a mut [u8; LINK_LEN]) -> &'a CStr {
    let mut digits = [0; 10];
    let fd = decimal(fd as u32, &mut digits);
    let parts: [&[u8]; 4] = [b"/proc/", process, b"/fd/", fd];
    let bytes = parts.into_iter().flatten();
    link.iter_mut().zip(bytes.chain(&[0])).for_each(|(to, from)| *to = *from);
    CStr::from_bytes_until_nul(link).unwrap_or_default()
}

/// A number as text.
pub fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at = at.wrapping_sub(1);
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' | (number % 10) as u8;
        }
        number /= 10;
        if number == 0 {
            return digits.get(at..).unwrap_or_default();
        }
    }
}

const HEAD: usize = 1024;

/// An open file and its first bytes.
pub struct File {
    fd: Fd,
    head: [u8; HEAD],
    len: usize,
    /// Whether executing it gives more rights, so that the loader ignores LD_PRELOAD (ld.so(8)).
    pub secure: bool,
}

impl File {
    /// Opens what can be executed and read; `None` for all else.
    pub fn of(program: &Program) -> Option<Self> {
        let mut link = [0; LINK_LEN];
        let path = match program.path() {
            Some(path) => path,
            None if program.flags & libc::AT_EMPTY_PATH as usize == 0 => return None,
            None => write_link(b"self", program.folder, &mut link),
        };
        // What is no regular file is not waited for, and never becomes our terminal.
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        let arguments = [program.folder as usize, path.as_ptr() as usize, flags as usize, 0];
        // SAFETY: the path ends with a zero.
        let fd = unsafe { sys::call(libc::SYS_openat, arguments) }.and_then(Fd::adopt).ok()?;
        let status = status(&fd)?;
        let regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
        if !regular || status.st_mode & 0o111 == 0 {
            return None;
        }
        let secure = is_secure(&fd, &status);
        let mut file = Self { fd, head: [0; HEAD], len: 0, secure };
        let mut head = [0; HEAD];
        file.len = file.pread(0, &mut head);
        file.head = head;
        Some(file)
    }

    /// Its descriptor.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Where it is, as the kernel has it; empty if it does not fit.
    pub fn path<'a>(&self, room: &'a mut [u8]) -> &'a [u8] {
        let mut link = [0; LINK_LEN];
        sys::read_link(write_link(b"self", self.fd.number(), &mut link), room).unwrap_or_default()
    }

    fn pread(&self, at: u64, into: &mut [u8]) -> usize {
        let arguments =
            [self.fd.number() as usize, into.as_mut_ptr() as usize, into.len(), at as usize];
        // SAFETY: the slice is ours to write.
        unsafe { sys::call(libc::SYS_pread64, arguments) }.unwrap_or(0)
    }
}

impl Source for File {
    fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let head = self.head.get(..self.len).unwrap_or_default();
        let known = head.get(at as usize..).and_then(|rest| rest.get(..into.len()));
        let Some(known) = known else { return self.pread(at, into) };
        into.iter_mut().zip(known).for_each(|(to, from)| *to = *from);
        known.len()
    }
}

fn status(fd: &Fd) -> Option<libc::stat> {
    // SAFETY: zeros are a value of it, and the kernel writes no more than it.
    unsafe {
        let mut status: libc::stat = core::mem::zeroed();
        let arguments = [fd.number() as usize, &raw mut status as usize];
        sys::call(libc::SYS_fstat, arguments).ok().map(|_| status)
    }
}

/// Set-user-ID, set-group-ID, or capabilities of a file (capabilities(7)), unless the process has
/// renounced them all (PR_SET_NO_NEW_PRIVS), or is root, who gains nothing by capabilities.
fn is_secure(fd: &Fd, status: &libc::stat) -> bool {
    // SAFETY: no pointer.
    let own = |number| unsafe { sys::call::<0>(number, []) }.unwrap_or(0) as u32;
    let has = |bits| status.st_mode & bits == bits;
    let user = own(libc::SYS_geteuid);
    let gives = (has(libc::S_ISUID) && status.st_uid != user)
        || (has(libc::S_ISGID | libc::S_IXGRP) && status.st_gid != own(libc::SYS_getegid))
        || (user != 0 && has_capabilities(fd));
    let renounced = [libc::PR_GET_NO_NEW_PRIVS as usize, 0, 0, 0, 0];
    // SAFETY: no pointer.
    gives && unsafe { sys::call(libc::SYS_prctl, renounced) } != Ok(1)
}

fn has_capabilities(fd: &Fd) -> bool {
    let name = c"security.capability".as_ptr() as usize;
    // SAFETY: the name ends, and nothing is written.
    unsafe { sys::call(libc::SYS_fgetxattr, [fd.number() as usize, name, 0, 0]) }.is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    use super::super::program::{Kind, classify};
    use super::*;

    #[test]
    fn numbers_and_links_are_written() {
        for number in [0, 7, 10, 4_294_967_295] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string().as_bytes());
        }
        assert_eq!(write_link(b"self", 12, &mut [0; LINK_LEN]), c"/proc/self/fd/12");
        assert_eq!(
            write_link(b"4294967295", i32::MAX, &mut [0; LINK_LEN]),
            c"/proc/4294967295/fd/2147483647"
        );
    }

    #[test]
    fn a_program_is_opened_by_each_of_its_names() {
        let shell = File::of(&Program::at(c"/bin/sh".as_ptr())).expect("a program");
        assert_eq!(classify(&shell), Kind::Dynamic);
        let file = std::fs::File::open("/bin/sh").expect("a file");
        let shell = File::of(&Program::open(file.as_raw_fd())).expect("a program");
        assert_eq!(classify(&shell), Kind::Dynamic);
        let folder = std::fs::File::open("/bin").expect("a folder");
        assert!(File::of(&Program::below(folder.as_raw_fd(), c"sh".as_ptr(), 0)).is_some());
    }

    #[test]
    fn what_cannot_be_executed_is_not_looked_at() {
        for path in [c"/etc/passwd", c"/tmp", c"/dev/null", c"/nowhere", c""] {
            assert!(File::of(&Program::at(path.as_ptr())).is_none(), "{path:?}");
        }
    }

    #[test]
    fn a_program_that_gives_rights_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("program");
        std::fs::write(&path, "#!/bin/sh\n").expect("a file");
        let secure = |mode| {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
            let path = std::ffi::CString::new(path.to_str().expect("text")).expect("no NUL");
            File::of(&Program::at(path.as_ptr())).expect("a program").secure
        };
        assert!(!secure(0o755));
        assert!(!secure(0o4755), "it gives no more than there is");
    }
}
