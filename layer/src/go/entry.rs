//! What Go's entry to the kernel jumps to. See `mirrord_protocol::layer::golang` for its registers.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};

use mirrord_protocol::layer::golang;

#[cfg(not(all(feature = "blob", not(test))))]
use super::answer::answer;
use super::program::HEAD;
#[cfg(all(feature = "blob", not(test)))]
use crate::blob::mirrord_blob_answer as answer;

/// What [`super::answer::answer`] says if the kernel is to be asked.
pub const NOT_OURS: isize = isize::MIN;

/// Bytes of a stack, with the page below that is none.
const STACK: usize = 68 << 10;
/// Bytes of the stack for execve(2), which holds a program's arguments and environment.
const EXEC_STACK_LEN: usize = 384 << 10;
/// Stacks that are kept.
const KEPT: usize = 32;
/// Numbers below 64 that may be ours: connect, accept, sendto, recvfrom, sendmsg, recvmsg, bind,
/// listen, getsockname, getpeername, getsockopt, execve, uname.
const LOW: u64 = {
    let numbers = [
        libc::SYS_connect,
        libc::SYS_accept,
        libc::SYS_sendto,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_getsockopt,
        libc::SYS_execve,
        libc::SYS_uname,
    ];
    let (mut bits, mut at) = (0, 0);
    while at < numbers.len() {
        bits |= 1 << numbers[at];
        at += 1;
    }
    bits
};

/// Stacks that nobody uses: the address of each one's end, or 0.
static FREE: [AtomicUsize; KEPT] = [const { AtomicUsize::new(0) }; KEPT];

/// Memory that one call at a time may use.
#[repr(C, align(4096))]
struct ExecStack(UnsafeCell<[u8; EXEC_STACK_LEN]>);

// SAFETY: who has set EXECUTING is the only one to use it.
unsafe impl Sync for ExecStack {}

/// Where execve(2) is looked at: it does not come back, and so would not return another stack.
static EXEC_STACK: ExecStack = ExecStack(UnsafeCell::new([0; EXEC_STACK_LEN]));

/// Whether somebody is on that stack. The kernel clears it for a child that shares this memory and
/// has become another program: see [`super::answer`].
pub static EXECUTING: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    fn mirrord_go_entry();
}

/// Where Go's entry is to jump to; rdx may be used for it.
pub fn address() -> usize {
    mirrord_go_entry as *const () as usize
}

/// Says where Go's entry is, before it is patched.
pub fn resume_at(entry: usize) {
    let resume: &AtomicI64 = &HEAD.resume;
    let from = core::ptr::from_ref(resume) as usize;
    let to = entry.wrapping_add(golang::RESUME);
    resume.store(to.wrapping_sub(from) as i64, Ordering::Release);
}

// The call's frame on the other stack, down from its end (r10): Go's rsp, the number, the arguments
// r9, r8, rsi, rdi, rcx, rbx (ascending: the kernel's six in their order), and whether it is the
// stack of execve. Nothing is written to Go's stack, which may be at its end.
global_asm!(
    // The rewriter of static programs finds the head by this word.
    ".balign 16",
    ".skip 8, 0xcc",
    ".quad {head} - .",
    ".globl mirrord_go_entry",
    ".hidden mirrord_go_entry",
    ".type mirrord_go_entry, @function",
    "mirrord_go_entry:",
    "cmp rax, 63",
    "ja 20f",
    "mov rdx, {low}",
    "bt rdx, rax",
    "jc 30f",
    // None of ours: what the jump has overwritten, then the rest of it.
    "10:",
    "mov r10, rsi",
    "mov rdx, rdi",
    "mov rsi, rcx",
    "mov rdi, rbx",
    "lea r11, [rip + {head}]",
    "add r11, qword ptr [r11]",
    "jmp r11",
    "20:",
    "cmp rax, {accept4}",
    "je 30f",
    "cmp rax, {recvmmsg}",
    "je 30f",
    "cmp rax, {sendmmsg}",
    "je 30f",
    "cmp rax, {readlinkat}",
    "je 30f",
    "cmp rax, {readlink}",
    "je 30f",
    "cmp rax, {io_uring_setup}",
    "jne 10b",
    // A stack: that of execve, one that is kept, or a new one.
    "30:",
    "cmp eax, {execve}",
    "je 60f",
    "lea r11, [rip + {free}]",
    "lea rdx, [r11 + 8 * {kept}]",
    "31:",
    "xor r10d, r10d",
    "cmp qword ptr [r11], r10",
    "je 32f",
    "xchg qword ptr [r11], r10",
    "test r10, r10",
    "jnz 40f",
    "32:",
    "add r11, 8",
    "cmp r11, rdx",
    "jb 31b",
    "movq xmm0, rax",
    "movq xmm1, rdi",
    "movq xmm2, rsi",
    "movq xmm3, r8",
    "movq xmm4, r9",
    "movq xmm5, rcx",
    "xor edi, edi",
    "mov esi, {stack}",
    "mov edx, {read_write}",
    "mov r10d, {anonymous}",
    "mov r8, -1",
    "xor r9d, r9d",
    "mov eax, {mmap}",
    "syscall",
    "cmp rax, -4096",
    "ja 55f",
    "mov r10, rax",
    "mov rdi, rax",
    "mov esi, 4096",
    "xor edx, edx",
    "mov eax, {mprotect}",
    "syscall",
    "add r10, {stack}",
    "movq rax, xmm0",
    "movq rdi, xmm1",
    "movq rsi, xmm2",
    "movq r8, xmm3",
    "movq r9, xmm4",
    "movq rcx, xmm5",
    "40:",
    "xor edx, edx",
    "41:",
    "mov qword ptr [r10 - 8], rsp",
    "mov qword ptr [r10 - 16], rax",
    "mov qword ptr [r10 - 24], r9",
    "mov qword ptr [r10 - 32], r8",
    "mov qword ptr [r10 - 40], rsi",
    "mov qword ptr [r10 - 48], rdi",
    "mov qword ptr [r10 - 56], rcx",
    "mov qword ptr [r10 - 64], rbx",
    "mov qword ptr [r10 - 72], rdx",
    "lea rsp, [r10 - 80]",
    "mov rdi, rax",
    "lea rsi, [r10 - 64]",
    "cld",
    "call {answer}",
    // Go on Go's stack; its compiler expects zeros in xmm15.
    "lea r10, [rsp + 80]",
    "mov rsp, qword ptr [r10 - 8]",
    "xorps xmm15, xmm15",
    "mov rdx, {not_ours}",
    "lea r11, [rip + 55f]",
    "cmp rax, rdx",
    "jne 42f",
    "mov rax, qword ptr [r10 - 16]",
    "mov r9, qword ptr [r10 - 24]",
    "mov r8, qword ptr [r10 - 32]",
    "mov rsi, qword ptr [r10 - 40]",
    "mov rdi, qword ptr [r10 - 48]",
    "mov rcx, qword ptr [r10 - 56]",
    "lea r11, [rip + 10b]",
    // The stack goes back; then to where r11 says.
    "42:",
    "movq xmm4, r11",
    "cmp qword ptr [r10 - 72], 0",
    "jne 65f",
    "lea r11, [rip + {free}]",
    "lea rdx, [r11 + 8 * {kept}]",
    "43:",
    "cmp qword ptr [r11], 0",
    "jne 44f",
    "xchg qword ptr [r11], r10",
    "test r10, r10",
    "jz 50f",
    "44:",
    "add r11, 8",
    "cmp r11, rdx",
    "jb 43b",
    "movq xmm0, rax",
    "movq xmm1, rdi",
    "movq xmm2, rsi",
    "movq xmm3, rcx",
    "lea rdi, [r10 - {stack}]",
    "mov esi, {stack}",
    "mov eax, {munmap}",
    "syscall",
    "movq rax, xmm0",
    "movq rdi, xmm1",
    "movq rsi, xmm2",
    "movq rcx, xmm3",
    "50:",
    "movq r11, xmm4",
    "jmp r11",
    // Answered: Go makes its three results of it.
    "55:",
    "xor edx, edx",
    "lea r11, [rip + {head}]",
    "add r11, qword ptr [r11]",
    "add r11, 2",
    "jmp r11",
    // Two at once come from no program that asks Go to fork: the second one is the kernel's.
    "60:",
    "mov edx, 1",
    "lea r11, [rip + {executing}]",
    "xchg dword ptr [r11], edx",
    "test edx, edx",
    "jnz 10b",
    "mov edx, 1",
    "lea r10, [rip + {exec_stack} + {exec_len}]",
    "jmp 41b",
    "65:",
    "lea r11, [rip + {executing}]",
    "mov dword ptr [r11], 0",
    "jmp 50b",
    ".size mirrord_go_entry, . - mirrord_go_entry",
    head = sym HEAD,
    free = sym FREE,
    executing = sym EXECUTING,
    exec_stack = sym EXEC_STACK,
    exec_len = const EXEC_STACK_LEN,
    answer = sym answer,
    low = const LOW,
    kept = const KEPT,
    stack = const STACK,
    not_ours = const NOT_OURS,
    accept4 = const libc::SYS_accept4,
    recvmmsg = const libc::SYS_recvmmsg,
    sendmmsg = const libc::SYS_sendmmsg,
    readlink = const libc::SYS_readlink,
    readlinkat = const libc::SYS_readlinkat,
    io_uring_setup = const libc::SYS_io_uring_setup,
    execve = const libc::SYS_execve,
    mmap = const libc::SYS_mmap,
    mprotect = const libc::SYS_mprotect,
    munmap = const libc::SYS_munmap,
    read_write = const libc::PROT_READ | libc::PROT_WRITE,
    anonymous = const libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
);
