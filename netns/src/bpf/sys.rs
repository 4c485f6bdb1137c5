//! The bpf system call, for programs and links.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn,
    bpf_prog_type::{self, BPF_PROG_TYPE_SK_LOOKUP},
};

/// What a program is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    program: bpf_prog_type,
    attach: bpf_attach_type,
}

/// A program that chooses the socket of a connection or datagram.
pub(crate) const SK_LOOKUP: Kind =
    Kind { program: BPF_PROG_TYPE_SK_LOOKUP, attach: bpf_attach_type::BPF_SK_LOOKUP };

/// A program that chooses the packets of a socket. It is attached by a socket option, and has no
/// attach type of its own.
pub(crate) const SOCKET_FILTER: Kind = Kind {
    program: bpf_prog_type::BPF_PROG_TYPE_SOCKET_FILTER,
    attach: bpf_attach_type::BPF_CGROUP_INET_INGRESS,
};

/// Loads a program; the verifier's words go to `log`, unless it is empty.
pub(super) fn load_program(
    kind: Kind,
    instructions: &[bpf_insn],
    license: &CStr,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let mut attributes = zeroed();
    // SAFETY: every variant of the union is plain integers, for which zero is valid.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = kind.program as u32;
    load.expected_attach_type = kind.attach as u32;
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = instructions.len() as u32;
    load.license = license.as_ptr() as u64;
    if !log.is_empty() {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = log.len() as u32;
    }
    // SAFETY: the three pointers are to borrowed memory of the lengths given, and `log` is
    // borrowed mutably.
    unsafe { call(bpf_cmd::BPF_PROG_LOAD, &attributes) }
}

/// Attaches a program to what `target` stands for, until the returned link is closed.
pub(super) fn create_link(
    kind: Kind,
    program: BorrowedFd<'_>,
    target: impl AsFd,
) -> io::Result<OwnedFd> {
    let mut attributes = zeroed();
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attributes.link_create.__bindgen_anon_2.target_fd = target.as_fd().as_raw_fd() as u32;
    attributes.link_create.attach_type = kind.attach as u32;
    // SAFETY: the attributes name no memory, only file descriptors that are borrowed.
    unsafe { call(bpf_cmd::BPF_LINK_CREATE, &attributes) }
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain integers, for which zero is valid.
    unsafe { mem::zeroed() }
}

/// Calls bpf for a new file descriptor.
///
/// # Safety
///
/// What the attributes point to must be valid for what the command does with it.
unsafe fn call(command: bpf_cmd, attributes: &bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are of the size given; the caller vouches for what they point to.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            &raw const *attributes,
            size_of::<bpf_attr>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a file descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
