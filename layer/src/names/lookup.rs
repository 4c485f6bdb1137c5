//! getaddrinfo(3): the C library says what a service is, the proxy what a name is.

use core::ffi::{c_char, c_int};

use libc::addrinfo;
use mirrord_protocol::layer::Cause;

use super::addrinfo::{Content, Services, Wanted};
use super::{Resolved, answer_room};
use crate::sys::Errno;

/// What getaddrinfo(3) is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The name.
    pub node: &'a [u8],
    /// The service, or null.
    pub service: *const c_char,
    /// `ai_family`, `ai_socktype`, `ai_protocol` and `ai_flags`, or what null means.
    pub hints: addrinfo,
    /// Who would answer without us.
    pub manner: Manner,
}

/// What C libraries put into entries beside the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The flags that were asked for, and a name in the first entry if it was asked for.
    Glibc,
    /// No flags, and a name in every entry.
    Musl,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked {
    /// The C library answers.
    Direct,
    /// A list of ours.
    List(*mut addrinfo),
    /// An error of getaddrinfo(3).
    Error(c_int),
    /// EAI_SYSTEM.
    System(Errno),
}

/// Flags about the address, which the service does not depend on.
const OF_ADDRESS: c_int =
    libc::AI_CANONNAME | libc::AI_V4MAPPED | libc::AI_ALL | libc::AI_ADDRCONFIG;
/// EAI_NODATA; the libc crate has it for glibc alone.
pub const EAI_NODATA: c_int = -5;

/// What null means as hints.
pub const NO_HINTS: addrinfo = addrinfo {
    ai_flags: libc::AI_V4MAPPED | libc::AI_ADDRCONFIG,
    ai_family: libc::AF_UNSPEC,
    ai_socktype: 0,
    ai_protocol: 0,
    ai_addrlen: 0,
    ai_addr: core::ptr::null_mut(),
    ai_canonname: core::ptr::null_mut(),
    ai_next: core::ptr::null_mut(),
};

impl Question<'_> {
    /// Asks the C library for the service alone, at an address that needs no resolver. It is the
    /// first to find fault with flags, types and services, as it would be without us.
    ///
    /// # Safety
    /// As getaddrinfo(3).
    unsafe fn services(&self, original: &impl Original) -> Result<Services, c_int> {
        let flags = (self.hints.ai_flags & !OF_ADDRESS) | libc::AI_NUMERICHOST;
        let hints = addrinfo {
            ai_flags: flags,
            ai_family: libc::AF_INET,
            ai_socktype: self.hints.ai_socktype,
            ai_protocol: self.hints.ai_protocol,
            ..NO_HINTS
        };
        let mut list = core::ptr::null_mut();
        // SAFETY: the caller's; the list is given back where it came from.
        unsafe {
            match original.get(c"127.0.0.1".as_ptr(), self.service, &raw const hints, &mut list) {
                0 => {}
                error => return Err(error),
            }
            let services = Services::of(list);
            original.free(list);
            Ok(services)
        }
    }
}

/// The C library's own functions.
pub trait Original {
    /// getaddrinfo(3).
    ///
    /// # Safety
    /// Its.
    unsafe fn get(
        &self,
        node: *const c_char,
        service: *const c_char,
        hints: *const addrinfo,
        list: &mut *mut addrinfo,
    ) -> c_int;

    /// freeaddrinfo(3).
    ///
    /// # Safety
    /// Its.
    unsafe fn free(&self, list: *mut addrinfo);
}

/// Looks a name up; `resolve` asks for it.
///
/// # Safety
/// As getaddrinfo(3).
pub unsafe fn look_up(
    question: Question<'_>,
    original: &impl Original,
    resolve: impl for<'a> FnOnce(&[u8], bool, bool, &'a mut [u8]) -> Resolved<'a>,
) -> Looked {
    let flags = question.hints.ai_flags;
    let Some(wanted) = Wanted::of(question.hints.ai_family, flags) else { return Looked::Direct };
    // SAFETY: the caller's.
    let services = match unsafe { question.services(original) } {
        Ok(services) => services,
        Err(error) => return Looked::Error(error),
    };
    let mut room = match answer_room() {
        Ok(room) => room,
        Err(errno) => return Looked::System(errno),
    };
    let answer = match resolve(question.node, wanted.v4, wanted.v6, room.bytes()) {
        Resolved::Direct => return Looked::Direct,
        Resolved::Found(answer) => answer,
        Resolved::Refused(cause) => return Looked::Error(error_of(cause)),
        Resolved::Failed(Errno::UNREACHABLE) => return Looked::Error(libc::EAI_AGAIN),
        Resolved::Failed(errno) => return Looked::System(errno),
    };
    let canonical = answer.canonical(question.node);
    let is_musl = question.manner == Manner::Musl;
    let content = Content {
        addresses: wanted.select(answer.addresses()),
        services: &services,
        flags: if is_musl { 0 } else { flags },
        canonical: (is_musl || flags & libc::AI_CANONNAME != 0).then_some(canonical),
        repeated: is_musl,
    };
    match content.build() {
        Ok(list) if list.is_null() => Looked::Error(EAI_NODATA),
        Ok(list) => Looked::List(list),
        Err(_) => Looked::Error(libc::EAI_MEMORY),
    }
}

fn error_of(cause: Cause) -> c_int {
    match cause {
        Cause::NotFound => libc::EAI_NONAME,
        Cause::NoData => EAI_NODATA,
        Cause::TryAgain => libc::EAI_AGAIN,
        Cause::Failed => libc::EAI_FAIL,
    }
}

#[cfg(test)]
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "all pointers are those of the test's own values"
)]
mod tests {
    use std::ffi::CStr;

    use super::super::addrinfo::free;
    use super::super::answer::{Answer, tests::payload};
    use super::*;

    struct Libc;

    impl Original for Libc {
        unsafe fn get(
            &self,
            node: *const c_char,
            service: *const c_char,
            hints: *const addrinfo,
            list: &mut *mut addrinfo,
        ) -> c_int {
            unsafe { libc::getaddrinfo(node, service, hints, list) }
        }

        unsafe fn free(&self, list: *mut addrinfo) {
            unsafe { libc::freeaddrinfo(list) }
        }
    }

    fn question(service: &'static CStr, hints: addrinfo) -> Question<'static> {
        Question { node: b"db", service: service.as_ptr(), hints, manner: Manner::Glibc }
    }

    fn looked(question: Question<'_>, ips: &[&str]) -> Looked {
        let bytes = payload(ips, "db.example");
        let resolve = |name: &[u8], _: bool, _: bool, room: &mut [u8]| {
            assert_eq!(name, b"db");
            room[..bytes.len()].copy_from_slice(&bytes);
        };
        unsafe {
            look_up(question, &Libc, |name, v4, v6, room| {
                resolve(name, v4, v6, room);
                Resolved::Found(Answer::decode(&room[..bytes.len()]).expect("an answer"))
            })
        }
    }

    fn refused(question: Question<'_>, cause: Cause) -> Looked {
        unsafe { look_up(question, &Libc, |_, _, _, _| Resolved::Refused(cause)) }
    }

    #[test]
    fn each_address_has_each_type_of_socket() {
        let Looked::List(list) = looked(question(c"80", NO_HINTS), &["10.0.0.1", "2001:db8::1"])
        else {
            panic!("no list")
        };
        let mut entries = vec![];
        let mut entry = list;
        while let Some(info) = unsafe { entry.as_ref() } {
            let port = unsafe { (*info.ai_addr.cast::<libc::sockaddr_in>()).sin_port };
            entries.push((info.ai_family, info.ai_socktype, u16::from_be(port)));
            assert!(info.ai_canonname.is_null());
            entry = info.ai_next;
        }
        let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW];
        let expected: Vec<_> = [libc::AF_INET, libc::AF_INET6]
            .into_iter()
            .flat_map(|family| kinds.map(|kind| (family, kind, 80)))
            .collect();
        assert_eq!(entries, expected);
        unsafe { free(list, |_| panic!("it is ours")) };
    }

    #[test]
    fn the_canonical_name_is_in_the_first_entry() {
        let hints = addrinfo { ai_flags: libc::AI_CANONNAME, ..NO_HINTS };
        let Looked::List(list) = looked(question(c"80", hints), &["10.0.0.1"]) else {
            panic!("no list")
        };
        let name = unsafe { CStr::from_ptr((*list).ai_canonname) };
        assert_eq!(name, c"db.example");
        assert!(unsafe { (*(*list).ai_next).ai_canonname.is_null() });
        unsafe { free(list, |_| panic!("it is ours")) };
    }

    #[test]
    fn entries_are_in_the_manner_of_the_c_library() {
        let shown = |manner| {
            let question = Question { manner, ..question(c"80", NO_HINTS) };
            let Looked::List(list) = looked(question, &["10.0.0.1"]) else { panic!("no list") };
            let second = unsafe { (*list).ai_next };
            let shown = unsafe { ((*list).ai_flags, (*second).ai_canonname.is_null()) };
            unsafe { free(list, |_| panic!("it is ours")) };
            shown
        };
        assert_eq!(shown(Manner::Glibc), (libc::AI_V4MAPPED | libc::AI_ADDRCONFIG, true));
        assert_eq!(shown(Manner::Musl), (0, false));
    }

    #[test]
    fn errors_are_those_of_the_c_library_and_of_the_name() {
        let service = |service, hints| looked(question(service, hints), &["10.0.0.1"]);
        assert_eq!(service(c"no-such-service", NO_HINTS), Looked::Error(libc::EAI_SERVICE));
        let odd = addrinfo { ai_socktype: 77, ..NO_HINTS };
        assert_eq!(service(c"80", odd), Looked::Error(libc::EAI_SOCKTYPE));
        let odd = addrinfo { ai_flags: 1 << 30, ..NO_HINTS };
        assert_eq!(service(c"80", odd), Looked::Error(libc::EAI_BADFLAGS));
        let odd = addrinfo { ai_family: libc::AF_UNIX, ..NO_HINTS };
        assert_eq!(service(c"80", odd), Looked::Direct);
        let none = question(c"80", NO_HINTS);
        assert_eq!(looked(none, &[]), Looked::Error(EAI_NODATA));
        assert_eq!(refused(none, Cause::NotFound), Looked::Error(libc::EAI_NONAME));
        assert_eq!(refused(none, Cause::TryAgain), Looked::Error(libc::EAI_AGAIN));
        let gone = unsafe { look_up(none, &Libc, |_, _, _, _| Resolved::Failed(Errno(24))) };
        assert_eq!(gone, Looked::System(Errno(24)));
    }
}
