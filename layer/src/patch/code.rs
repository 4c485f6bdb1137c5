//! A jump in the place of a function.

use crate::sys;

const PAGE: usize = 4096;
/// Bytes of the jump: `mov register, target` and `jmp register`.
const LEN: usize = 12;

/// Which register holds the target; one that the function does not get anything in.
#[derive(Clone, Copy)]
pub enum Jump {
    /// C's functions, but for variadic ones.
    Rax,
    /// Go's entry to the kernel.
    Rdx,
}

impl Jump {
    fn code(self, target: usize) -> [u8; LEN] {
        let (load, jump) = match self {
            Self::Rax => (0xb8, 0xe0),
            Self::Rdx => (0xba, 0xe2),
        };
        let [a, b, c, d, e, f, g, h] = target.to_le_bytes();
        [0x48, load, a, b, c, d, e, f, g, h, 0xff, jump]
    }
}

/// Replaces the code at a place in memory, of which so many bytes are the executable's code and may
/// be overwritten. No other thread may run yet.
pub fn replace(place: usize, room: usize, jump: Jump, target: usize) {
    if room < LEN {
        return;
    }
    let begin = place & !(PAGE - 1);
    let Some(len) = place.checked_add(LEN).and_then(|end| end.checked_sub(begin)) else { return };
    let protect = |protection: i32| {
        // SAFETY: the caller's; pages of code, none of which holds this function.
        unsafe { sys::call(libc::SYS_mprotect, [begin, len, protection as usize]) }
    };
    if protect(libc::PROT_READ | libc::PROT_WRITE).is_ok() {
        // SAFETY: they are writable now, and nobody runs them.
        unsafe { (place as *mut [u8; LEN]).write_unaligned(jump.code(target)) };
    }
    // What the kernel refuses twice stays as it was: writable it cannot have become then.
    let _ = protect(libc::PROT_READ | libc::PROT_EXEC);
}

#[cfg(test)]
mod tests {
    use super::super::Jumps;
    use super::*;
    use crate::engine::Engine;

    #[test]
    fn a_jump_is_two_instructions() {
        let code = Jump::Rdx.code(0x1122_3344_5566_7788);
        assert_eq!(code, *b"\x48\xba\x88\x77\x66\x55\x44\x33\x22\x11\xff\xe2");
    }

    /// A function that gives 1, in a page of its own: where it is, nothing can run while it is
    /// written. It is longer than a jump, and each byte of its beginning is an instruction.
    fn replaced() -> (usize, extern "C" fn() -> i32) {
        const NOTHING: [u8; 16] = [0x90; 16];
        const ONE: [u8; 6] = *b"\xb8\x01\x00\x00\x00\xc3";
        let (protection, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let arguments = [0, PAGE, protection as usize, kind as usize, usize::MAX, 0];
        // SAFETY: it takes nothing from anybody.
        let place = unsafe { sys::call(libc::SYS_mmap, arguments) }.unwrap();
        let protection = (libc::PROT_READ | libc::PROT_EXEC) as usize;
        // SAFETY: the page is ours, and holds a function.
        unsafe {
            (place as *mut [u8; 16]).write(NOTHING);
            ((place + NOTHING.len()) as *mut [u8; 6]).write(ONE);
            sys::call(libc::SYS_mprotect, [place, PAGE, protection]).unwrap();
            (place, core::mem::transmute::<usize, extern "C" fn() -> i32>(place))
        }
    }

    extern "C" fn other() -> i32 {
        2
    }

    #[test]
    fn a_function_goes_on_at_another_one_if_there_is_room() {
        let (place, replaced) = replaced();
        let with = other as *const () as usize;
        let mut engine = Jumps;
        engine.replace(place, LEN - 1, with);
        assert_eq!(replaced(), 1);
        engine.replace(place, LEN, with);
        assert_eq!(replaced(), 2);
    }
}
