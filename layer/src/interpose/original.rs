//! The functions that are hooked, as they are without us.

use core::ffi::{c_char, c_int, c_void};
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
pub struct Original {
    /// With a zero at its end.
    name: &'static str,
    place: AtomicPtr<c_void>,
}

impl Original {
    /// The one of this name, which ends with a zero.
    pub const fn new(name: &'static str) -> Self {
        Self { name, place: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Where it is; null if there is none.
    pub fn find(&self) -> *mut c_void {
        let found = self.place.load(Ordering::Acquire);
        if found.is_null() {
            return self.look_for();
        }
        if found == nowhere() { core::ptr::null_mut() } else { found }
    }

    #[cold]
    fn look_for(&self) -> *mut c_void {
        // SAFETY: the name ends with a zero.
        let found = unsafe { dlsym(next(), self.name.as_ptr().cast()) };
        let kept = if found.is_null() { nowhere() } else { found };
        self.place.store(kept, Ordering::Release);
        found
    }

    /// Where it is now that it has been replaced.
    #[cfg(feature = "frida")]
    pub fn set(&self, place: usize) {
        self.place.store(place as *mut c_void, Ordering::Release);
    }
}

/// A function of this type, as an `Option`: some libcs lack some. Either one behind a hook, by the
/// hook's symbol, or any other.
macro_rules! original {
    ($symbol:ident: $kind:ty) => {
        original!(*$crate::table::original::$symbol, $kind)
    };
    (any $name:ident: $kind:ty) => {{
        static PLACE: $crate::interpose::Original =
            $crate::interpose::Original::new(concat!(stringify!($name), "\0"));
        original!(*PLACE, $kind)
    }};
    (*$place:expr, $kind:ty) => {
        // SAFETY: a function of that name has that type in every libc; null is `None`.
        unsafe { core::mem::transmute::<*mut core::ffi::c_void, Option<$kind>>($place.find()) }
    };
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
