//! Room on the stack whose size is known late: a child that shares its parent's memory until it
//! executes a program (vfork(2)) can leave nothing behind there.

use core::ffi::c_void;

/// The most bytes.
pub const MOST: usize = 1 << 20;

type Callee = unsafe extern "C" fn(context: *mut c_void, room: *mut u8);

/// Calls a function with so many bytes, aligned to 16; each page is touched in its turn,
/// as a guard page below the stack wants it.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn call_with(len: usize, context: *mut c_void, callee: Callee) {
    core::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "add rdi, 15",
        "and rdi, -16",
        "2:",
        "cmp rdi, 4096",
        "jb 3f",
        "sub rsp, 4096",
        "or qword ptr [rsp], 0",
        "sub rdi, 4096",
        "jmp 2b",
        "3:",
        "sub rsp, rdi",
        "mov rdi, rsi",
        "mov rsi, rsp",
        "call rdx",
        "leave",
        "ret",
    )
}

/// As above.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn call_with(len: usize, context: *mut c_void, callee: Callee) {
    core::arch::naked_asm!(
        "stp x29, x30, [sp, #-16]!",
        "mov x29, sp",
        "add x0, x0, #15",
        "and x0, x0, #-16",
        "2:",
        "cmp x0, #4096",
        "b.lo 3f",
        "sub sp, sp, #4096",
        "str xzr, [sp]",
        "sub x0, x0, #4096",
        "b 2b",
        "3:",
        "sub sp, sp, x0",
        "mov x0, x1",
        "mov x1, sp",
        "blr x2",
        "mov sp, x29",
        "ldp x29, x30, [sp], #16",
        "ret",
    )
}

/// Calls a function with room for so many bytes, at most [`MOST`], aligned to 16.
pub fn with<T>(len: usize, callee: impl FnOnce(*mut u8) -> T) -> T {
    let mut callee = Some(callee);
    let mut value = core::mem::MaybeUninit::uninit();
    let mut both = |room: *mut u8| {
        if let Some(callee) = callee.take() {
            value.write(callee(room));
        }
    };
    let call = call_as(&both);
    // SAFETY: `call` takes a closure of this type, and the stack is as it was afterwards.
    unsafe { call_with(len.min(MOST), (&raw mut both).cast(), call) };
    // SAFETY: the closure was called once, and has written.
    unsafe { value.assume_init() }
}

/// The function that calls a closure of this type.
fn call_as<F: FnMut(*mut u8)>(_: &F) -> Callee {
    /// # Safety
    /// The context is such a closure.
    unsafe extern "C" fn call<F: FnMut(*mut u8)>(context: *mut c_void, room: *mut u8) {
        // SAFETY: the caller's.
        unsafe { (*context.cast::<F>())(room) }
    }
    call::<F>
}

#[cfg(test)]
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "all pointers are those of the test's own values"
)]
mod tests {
    use super::*;

    #[test]
    fn there_is_as_much_room_as_was_asked_for() {
        for len in [0, 1, 15, 4096, 4097, 100_000] {
            let sum = with(len, |room| {
                assert_eq!(room as usize % 16, 0);
                let room = unsafe {
                    room.write_bytes(3, len);
                    core::slice::from_raw_parts(room, len)
                };
                room.iter().map(|byte| usize::from(*byte)).sum::<usize>()
            });
            assert_eq!(sum, 3 * len);
        }
    }

    #[test]
    fn rooms_may_be_nested() {
        let sum = with(64, |outer| {
            unsafe { outer.cast::<u64>().write(40) };
            let inner = with(64, |inner| unsafe {
                inner.cast::<u64>().write(2);
                inner.cast::<u64>().read()
            });
            unsafe { outer.cast::<u64>().read() + inner }
        });
        assert_eq!(sum, 42);
    }
}
