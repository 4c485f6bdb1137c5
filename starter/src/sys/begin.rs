//! The program's first instruction, and what the kernel left on the stack for it.

use core::ffi::{CStr, c_char};

/// What the kernel gave the process to begin with.
pub struct Start {
    words: *const *const c_char,
    count: usize,
    pub(super) environment: *const *const c_char,
}

impl Start {
    /// The words of the command line behind the program's name.
    pub fn words(&self) -> impl Iterator<Item = &[u8]> {
        (1..self.count).map(|place| {
            // SAFETY: the kernel's list has that many strings, and they stay.
            unsafe { CStr::from_ptr(*self.words.add(place)) }.to_bytes()
        })
    }
}

#[cfg(feature = "program")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {first}",
    "ud2",
    first = sym first,
);

/// The first function: reads what the kernel left on the stack.
#[cfg(feature = "program")]
unsafe extern "C" fn first(stack: *const usize) -> ! {
    // SAFETY: the kernel puts the count, the words, a null and the environment there.
    let start = unsafe {
        let (count, words) = (*stack, stack.add(1).cast());
        Start { words, count, environment: stack.add(count + 2).cast() }
    };
    super::exit(crate::run(&start))
}
