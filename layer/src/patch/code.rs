//! A jump in the place of a function.

use super::image::Image;
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

/// Replaces a function that has an address in the file and so many bytes.
pub fn replace(image: &Image, address: usize, len: usize, jump: Jump, target: usize) {
    if let Some(place) = image.code_at(address, len) {
        replace_at(image, place, len, jump, target);
    }
}

/// Replaces the code at a place in memory, of which so many bytes may be overwritten. No other
/// thread may run yet.
pub fn replace_at(image: &Image, place: usize, room: usize, jump: Jump, target: usize) {
    if room < LEN || !image.holds_code(place, LEN) {
        return;
    }
    let begin = place & !(PAGE - 1);
    let Some(len) = place.checked_add(LEN).and_then(|end| end.checked_sub(begin)) else { return };
    let protect = |protection: i32| {
        // SAFETY: pages of the executable's code, none of which holds this function.
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
    use super::*;

    #[test]
    fn a_jump_is_two_instructions() {
        let code = Jump::Rdx.code(0x1122_3344_5566_7788);
        assert_eq!(code, *b"\x48\xba\x88\x77\x66\x55\x44\x33\x22\x11\xff\xe2");
    }
}
