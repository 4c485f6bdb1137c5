//! resolver(3): each function by its name in musl and glibc, and by the one that glibc's header
//! makes of it.

use core::ffi::{c_char, c_int, c_void};

use super::super::{errno, set_errno};
use super::{set_host_error, text};
use crate::engine::Quiet;
use crate::names::{self, Asked, HostError, Wish};
use crate::sys::Errno;

/// Where `res_h_errno` is in glibc's `struct __res_state`, on machines of 64 bits.
const STATE_ERROR: usize = 496;

/// What a resolver's function is asked, beside its question.
#[derive(Clone, Copy)]
struct Place {
    /// `struct __res_state` of the reentrant forms, or null.
    state: *mut c_void,
    room: *mut u8,
    len: c_int,
}

impl Place {
    /// The caller's buffer.
    unsafe fn room<'a>(self) -> &'a mut [u8] {
        let len = usize::try_from(self.len).unwrap_or(0);
        if self.room.is_null() {
            return &mut [];
        }
        // SAFETY: the caller's.
        unsafe { core::slice::from_raw_parts_mut(self.room, len) }
    }

    fn set_error(self, error: HostError) {
        set_host_error(error);
        if !self.state.is_null() {
            // SAFETY: the caller's structure is longer than that.
            unsafe { *self.state.byte_add(STATE_ERROR).cast::<c_int>() = error as c_int };
        }
    }

    /// `None` if the C library is to answer.
    fn answer(self, before: i32, asked: Asked) -> Option<c_int> {
        match asked {
            Asked::Direct => return None,
            Asked::Answer(len) => {
                set_errno(before);
                return Some(c_int::try_from(len).unwrap_or(c_int::MAX));
            }
            Asked::Missing(error) => self.set_error(error),
            Asked::Failed(Errno(errno)) => {
                set_errno(errno);
                self.set_error(HostError::Internal);
            }
        }
        Some(-1)
    }

    unsafe fn query(self, wish: Wish<'_>) -> Option<c_int> {
        let before = errno();
        // SAFETY: the caller's.
        self.answer(before, names::query(wish, unsafe { self.room() }))
    }

    unsafe fn send(self, message: *const u8, len: c_int) -> Option<c_int> {
        let before = errno();
        let len = usize::try_from(len).unwrap_or(0);
        // SAFETY: the caller's.
        let (message, room) = unsafe { (core::slice::from_raw_parts(message, len), self.room()) };
        self.answer(before, names::send(message, room))
    }

    /// What a C library says that lacks the function.
    fn lacking(self) -> c_int {
        self.set_error(HostError::Failed);
        -1
    }
}

macro_rules! hooks {
    ($(
        $name:ident, $alias:ident($($argument:ident: $kind:ty),+)
        [$state:expr, $room:ident, $len:ident] $place:ident => $asked:expr;
    )+) => {$(
        hooks!(@one $name($($argument: $kind),+) [$state, $room, $len] $place => $asked);
        hooks!(@one $alias($($argument: $kind),+) [$state, $room, $len] $place => $asked);
    )+};
    (@one $name:ident($($argument:ident: $kind:ty),+)
        [$state:expr, $room:ident, $len:ident] $place:ident => $asked:expr) => {
        #[cfg_attr(not(feature = "frida"), unsafe(no_mangle))]
        pub(crate) unsafe extern "C" fn $name($($argument: $kind),+) -> c_int {
            let $place = Place { state: $state, room: $room, len: $len };
            // SAFETY: the caller's, as all arguments are.
            let asked: Option<c_int> = unsafe { $asked };
            asked.unwrap_or_else(|| {
                let _quiet = Quiet::begin();
                match original!($name: unsafe extern "C" fn($($kind),+) -> c_int) {
                    // SAFETY: as above.
                    Some(original) => unsafe { original($($argument),+) },
                    None => $place.lacking(),
                }
            })
        }
    };
}

hooks! {
    res_query, __res_query(
        name: *const c_char, class: c_int, kind: c_int, room: *mut u8, len: c_int
    ) [core::ptr::null_mut(), room, len] place => place.query(Wish {
        name: text(name), domain: b"", class, kind, search: false
    });
    res_search, __res_search(
        name: *const c_char, class: c_int, kind: c_int, room: *mut u8, len: c_int
    ) [core::ptr::null_mut(), room, len] place => place.query(Wish {
        name: text(name), domain: b"", class, kind, search: true
    });
    res_querydomain, __res_querydomain(
        name: *const c_char, domain: *const c_char,
        class: c_int, kind: c_int, room: *mut u8, len: c_int
    ) [core::ptr::null_mut(), room, len] place => place.query(Wish {
        name: text(name), domain: text(domain), class, kind, search: false
    });
    res_send, __res_send(
        message: *const u8, message_len: c_int, room: *mut u8, len: c_int
    ) [core::ptr::null_mut(), room, len] place => place.send(message, message_len);
    res_nquery, __res_nquery(
        state: *mut c_void,
        name: *const c_char, class: c_int, kind: c_int, room: *mut u8, len: c_int
    ) [state, room, len] place => place.query(Wish {
        name: text(name), domain: b"", class, kind, search: false
    });
    res_nsearch, __res_nsearch(
        state: *mut c_void,
        name: *const c_char, class: c_int, kind: c_int, room: *mut u8, len: c_int
    ) [state, room, len] place => place.query(Wish {
        name: text(name), domain: b"", class, kind, search: true
    });
    res_nquerydomain, __res_nquerydomain(
        state: *mut c_void, name: *const c_char, domain: *const c_char,
        class: c_int, kind: c_int, room: *mut u8, len: c_int
    ) [state, room, len] place => place.query(Wish {
        name: text(name), domain: text(domain), class, kind, search: false
    });
    res_nsend, __res_nsend(
        state: *mut c_void, message: *const u8, message_len: c_int, room: *mut u8, len: c_int
    ) [state, room, len] place => place.send(message, message_len);
}
