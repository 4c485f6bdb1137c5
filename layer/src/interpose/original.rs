//! The functions that are hooked, as they are without us.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
}

/// RTLD_NEXT (dlsym(3)).
fn next() -> *mut c_void {
    core::ptr::without_provenance_mut(usize::MAX)
}

/// Stands for a function that is nowhere.
fn nowhere() -> *mut c_void {
    core::ptr::without_provenance_mut(1)
}

/// A function behind ours, looked for when it is needed first.
pub struct Original(AtomicPtr<c_void>);

impl Original {
    /// One that was not looked for.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// Where it is; null if there is none.
    pub fn find(&self, name: &CStr) -> *mut c_void {
        let found = self.0.load(Ordering::Acquire);
        if found.is_null() {
            return self.look_for(name);
        }
        if found == nowhere() { core::ptr::null_mut() } else { found }
    }

    #[cold]
    fn look_for(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the name ends with a zero.
        let found = unsafe { dlsym(next(), name.as_ptr()) };
        let kept = if found.is_null() { nowhere() } else { found };
        self.0.store(kept, Ordering::Release);
        found
    }
}

/// The function of this name and type behind ours, as an `Option`: some libcs lack some.
macro_rules! original {
    ($name:ident: $kind:ty) => {{
        static PLACE: $crate::interpose::Original = $crate::interpose::Original::new();
        const NAME: &core::ffi::CStr =
            match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes())
            {
                Ok(name) => name,
                Err(_) => c"",
            };
        // SAFETY: a function of that name has that type in every libc; null is `None`.
        unsafe { core::mem::transmute::<*mut core::ffi::c_void, Option<$kind>>(PLACE.find(NAME)) }
    }};
}

/// The calling thread's `errno`.
pub fn errno() -> i32 {
    // SAFETY: libc's promise.
    unsafe { *__errno_location() }
}

/// Sets the calling thread's `errno`.
pub fn set_errno(value: i32) {
    // SAFETY: libc's promise.
    unsafe { *__errno_location() = value }
}
