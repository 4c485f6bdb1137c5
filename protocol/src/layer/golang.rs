//! Go's entry to the kernel, as every Go program for amd64 since 1.19 contains it:
//! `Syscall6` of `internal/runtime/syscall/linux` (before 1.26 of `internal/runtime/syscall`, before
//! 1.23 of `runtime/internal/syscall`). It is known by its instructions and not by its name, so that
//! stripped programs have it as well.
//!
//! ```text
//!    0  mov r10, rsi        number in rax; arguments in rbx, rcx, rdi, rsi, r8, r9
//!    3  mov rdx, rdi        (Go's ABIInternal)
//!    6  mov rsi, rcx
//!    9  mov rdi, rbx
//!   12  syscall             RESUME: goes on here if the call is the kernel's
//!   14  cmp rax, -4095      goes on here if it was answered in the kernel's place
//! ```

/// The instructions.
const ENTRY: [u8; 20] = [
    0x49, 0x89, 0xf2, 0x48, 0x89, 0xfa, 0x48, 0x89, 0xce, 0x48, 0x89, 0xdf, 0x0f, 0x05, 0x48, 0x3d,
    0x01, 0xf0, 0xff, 0xff,
];
/// Go's linker begins a function at a multiple of this, and of more.
const ALIGNMENT: usize = 16;

/// Bytes of the entry that may be overwritten.
pub const ROOM: usize = 12;
/// Where in the entry the system call stands.
pub const RESUME: usize = 12;

/// Where in a program's code the entry is; `code` begins at a multiple of 16 in memory.
pub fn entry(code: &[u8]) -> Option<usize> {
    let (functions, _) = code.as_chunks::<ALIGNMENT>();
    let (head, tail) = ENTRY.split_first_chunk::<ALIGNMENT>()?;
    functions.iter().enumerate().find_map(|(number, function)| {
        if function != head {
            return None;
        }
        let at = number.checked_mul(ALIGNMENT)?;
        let rest = code.get(at.checked_add(ALIGNMENT)?..)?;
        rest.starts_with(tail).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_found_where_a_function_can_begin() {
        let mut code = [0xcc; 200];
        assert_eq!(entry(&code), None);
        code[17..][..ENTRY.len()].copy_from_slice(&ENTRY);
        assert_eq!(entry(&code), None, "not the beginning of a function");
        code[64..][..ENTRY.len()].copy_from_slice(&ENTRY);
        assert_eq!(entry(&code), Some(64));
        assert_eq!(entry(&code[..64 + ENTRY.len()]), Some(64));
        assert_eq!(entry(&code[..64 + ENTRY.len() - 1]), None, "cut off");
    }
}
