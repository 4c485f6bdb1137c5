//! Functions of the executable itself that are replaced in memory, before the program runs: those
//! that make system calls without libc, which no symbol of a library can stand in for. An engine
//! replaces those that are whole functions; Go's entry, whose second half goes on, gets a jump.
//!
//! ```text
//!   image: its segments in memory ─┬─► uv:  uv__accept4, found by its name
//!   file:  its sections ───────────┴─► go:  the entry to the kernel, found by its instructions
//!                                            │
//!                                            └─► code: a jump in its place
//! ```
//!
//! What cannot be found is left as it is. For x86_64 alone: on other machines nothing is replaced.

#[cfg(target_arch = "x86_64")]
mod bytes;
#[cfg(target_arch = "x86_64")]
mod code;
#[cfg(target_arch = "x86_64")]
mod dynamic;
#[cfg(target_arch = "x86_64")]
mod file;
#[cfg(target_arch = "x86_64")]
mod image;

use crate::engine::Engine;

/// No build makes more than so many bytes of a function that makes one system call.
#[cfg(target_arch = "x86_64")]
const LONGEST_UV: usize = 256;
/// No build has libuv's functions farther from one another.
#[cfg(target_arch = "x86_64")]
const FARTHEST_UV: usize = 1 << 20;

/// Writes a jump at the beginning of a function, of which nothing is left.
pub struct Jumps;

#[cfg(target_arch = "x86_64")]
impl Engine for Jumps {
    fn replace(&mut self, function: usize, len: usize, with: usize) -> Option<usize> {
        code::replace(function, len, code::Jump::Rax, with);
        None
    }
}

/// Not on other machines.
#[cfg(not(target_arch = "x86_64"))]
impl Engine for Jumps {
    fn replace(&mut self, _: usize, _: usize, _: usize) -> Option<usize> {
        None
    }
}

/// Replaces what the executable has of them.
#[cfg(target_arch = "x86_64")]
pub fn install(engine: &mut impl Engine) {
    let Some(image) = image::Image::of_executable() else { return };
    // libuv 1.35 was the first without the function, 1.38 the first with the other one. To look
    // through all names of an executable takes a while.
    let uv = dynamic::Dynamic::of(&image)
        .filter(|dynamic| dynamic.address(b"uv_library_shutdown").is_none())
        .and_then(|dynamic| dynamic.address(b"uv_accept"));
    let Some(file) = file::File::of_executable() else { return };
    let near = |uv: usize| uv.saturating_sub(FARTHEST_UV)..uv.saturating_add(FARTHEST_UV);
    if let Some(uv) = uv
        && let Some((address, len)) = file.function(b"uv__accept4", near(uv), LONGEST_UV)
        && let Some(place) = image.code_at(address, len)
    {
        engine.replace(place, len, uv_accept4 as *const () as usize);
    }
    if file.is_go() {
        enter_go(&image);
    }
}

/// On other machines: nothing.
#[cfg(not(target_arch = "x86_64"))]
pub fn install(_: &mut impl Engine) {}

#[cfg(target_arch = "x86_64")]
fn enter_go(image: &image::Image) {
    use mirrord_protocol::layer::golang;
    let found = image.code().find_map(|(address, code)| {
        // Functions are aligned in memory, not in the segment.
        let skipped = address.wrapping_neg() % 16;
        let at = golang::entry(code.get(skipped..)?)?;
        Some(address.wrapping_add(skipped).wrapping_add(at))
    });
    let Some(entry) = found else { return };
    crate::go::resume_at(entry);
    let to = crate::go::address();
    code::replace(entry, golang::ROOM, code::Jump::Rdx, to);
}

/// What libuv's function does: accept4(2), with `errno` as libc's `syscall` leaves it.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn uv_accept4(fd: i32, address: usize, len: usize, flags: i32) -> i32 {
    // SAFETY: the program's arguments.
    let answer = unsafe { crate::detours::uv_accept4(fd as usize, address, len, flags as usize) };
    match crate::sys::result(answer) {
        Ok(accepted) => accepted as i32,
        Err(errno) => {
            #[cfg(all(feature = "preload", not(test)))]
            crate::interpose::set_errno(errno.0);
            #[cfg(not(all(feature = "preload", not(test))))]
            let _ = errno;
            -1
        }
    }
}
