//! What others get from a dynamic loader and from libc, for the layer in a program without them.
//!
//! The string instructions keep the compiler from making calls of memcpy and its like out of these
//! functions.

use core::arch::{asm, global_asm};

unsafe extern "C" {
    /// [`crate::go`]'s answer to a system call, once this part of the program has its addresses.
    pub fn mirrord_blob_answer(number: usize, arguments: &[usize; 6]) -> isize;
}

// The compiler's precompiled parts reach memcpy and its like through a table of addresses: its
// relocations (all R_X86_64_RELATIVE, as nothing is undefined) are applied at the first call. Two
// threads that do so at once write the same.
global_asm!(
    ".hidden _DYNAMIC",
    ".hidden __ehdr_start",
    ".hidden mirrord_blob_answer",
    ".globl mirrord_blob_answer",
    ".type mirrord_blob_answer, @function",
    "mirrord_blob_answer:",
    "cmp byte ptr [rip + 90f], 0",
    "jne 9f",
    "lea r8, [rip + __ehdr_start]",
    "lea r9, [rip + _DYNAMIC]",
    "xor eax, eax",
    "xor ecx, ecx",
    // DT_RELA (7) and DT_RELASZ (8), up to DT_NULL.
    "2:",
    "mov rdx, qword ptr [r9]",
    "mov r10, qword ptr [r9 + 8]",
    "add r9, 16",
    "cmp rdx, 7",
    "cmove rax, r10",
    "cmp rdx, 8",
    "cmove rcx, r10",
    "test rdx, rdx",
    "jnz 2b",
    "add rax, r8",
    "add rcx, rax",
    "3:",
    "cmp rax, rcx",
    "jae 4f",
    "mov rdx, qword ptr [rax]",
    "mov r10, qword ptr [rax + 16]",
    "add r10, r8",
    "mov qword ptr [r8 + rdx], r10",
    "add rax, 24",
    "jmp 3b",
    "4:",
    "mov byte ptr [rip + 90f], 1",
    "9:",
    "jmp {answer}",
    ".size mirrord_blob_answer, . - mirrord_blob_answer",
    ".pushsection .bss",
    "90: .skip 1",
    ".popsection",
    answer = sym crate::go::answer,
);

/// memcpy(3)
///
/// # Safety
/// As the function of libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    to
}

/// memmove(3)
///
/// # Safety
/// As the function of libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: the caller's promise; what is written was read before.
        return unsafe { memcpy(to, from, len) };
    }
    let last = len.wrapping_sub(1);
    // SAFETY: the caller's promise; from the end on, for the same reason.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") len => _,
            inout("rdi") to.wrapping_add(last) => _,
            inout("rsi") from.wrapping_add(last) => _,
            options(nostack)
        );
    }
    to
}

/// memset(3)
///
/// # Safety
/// As the function of libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags)
        );
    }
    to
}

/// memcmp(3)
///
/// # Safety
/// As the function of libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    let mut at = 0;
    while at < len {
        // SAFETY: the caller's promise.
        let bytes = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if bytes.0 != bytes.1 {
            return i32::from(bytes.0).wrapping_sub(i32::from(bytes.1));
        }
        at = at.wrapping_add(1);
    }
    0
}

/// bcmp(3)
///
/// # Safety
/// As the function of libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(one, other, len) }
}

/// strlen(3)
///
/// # Safety
/// As the function of libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len: usize = 0;
    // SAFETY: the caller's promise.
    while unsafe { text.add(len).read_volatile() } != 0 {
        len = len.wrapping_add(1);
    }
    len
}
