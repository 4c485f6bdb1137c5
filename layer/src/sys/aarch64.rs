//! The system call instruction of aarch64.

use core::arch::asm;

/// One system call; the return value is the kernel's.
///
/// # Safety
/// See [`super::call`].
pub unsafe fn raw(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let answer;
    // SAFETY: the kernel's calling convention; it changes x0 alone.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a as isize => answer,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack)
        );
    }
    answer
}
