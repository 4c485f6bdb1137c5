//! What is written into a static program's copy of the layer when it is made.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// The longest path that is remembered, with its NUL.
const PATH: usize = 1016;

/// What the rewriter of static programs fills in; `proxy` knows its layout.
#[repr(C, align(8))]
pub struct Head {
    /// How far from here Go's entry goes on.
    pub resume: AtomicI64,
    /// The path of the program that was rewritten, NUL-terminated, or empty.
    path: UnsafeCell<[u8; PATH]>,
}

// SAFETY: the path never changes while the program runs.
unsafe impl Sync for Head {}

/// Of this process.
pub static HEAD: Head = Head { resume: AtomicI64::new(0), path: UnsafeCell::new([0; PATH]) };

/// The path of the program's own file, if what runs is a rewritten copy of it.
pub fn program() -> Option<&'static [u8]> {
    // SAFETY: it never changes while the program runs; volatile, for it was changed before.
    let path = unsafe { HEAD.path.get().read_volatile() };
    let len = path.iter().position(|byte| *byte == 0).filter(|len| *len > 0)?;
    // SAFETY: as above, and the reference lives as long as the process.
    let whole: &'static [u8; PATH] = unsafe { &*HEAD.path.get() };
    whole.get(..len)
}

/// readlink(2) of /proc/self/exe, which names a copy: says the program's own path instead.
///
/// # Safety
/// `path` is a NUL-terminated string, and `into` has room for `len` bytes.
pub unsafe fn read_link(path: *const u8, into: *mut u8, len: usize) -> Option<isize> {
    let program = program()?;
    if path.is_null() || into.is_null() {
        return None;
    }
    let wanted = b"/proc/self/exe\0";
    let mut at = path;
    for byte in wanted {
        // SAFETY: no byte before this one was the string's last.
        if unsafe { at.read() } != *byte {
            return None;
        }
        at = at.wrapping_add(1);
    }
    let len = len.min(program.len());
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy_nonoverlapping(program.as_ptr(), into, len) };
    Some(len as isize)
}

/// Gives the process the program's name instead of the copy's, once.
pub fn rename() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    if DONE.load(Ordering::Relaxed) != 0 || DONE.swap(1, Ordering::Relaxed) != 0 {
        return;
    }
    let Some(path) = program() else { return };
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    super::kernel::name_process(name);
}
