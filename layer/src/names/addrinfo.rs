//! Lists of `struct addrinfo` (getaddrinfo(3)) in pages of our own, told from the C library's by
//! what their pages begin with.

use core::ffi::{c_char, c_int};
use core::net::IpAddr;
use core::sync::atomic::{AtomicUsize, Ordering};

use libc::addrinfo;
use mirrord_protocol::layer::MAX_NAME;

use super::memory::{self, Pages};
use crate::sys::Errno;

const PAGE: usize = 4096;
const MAGIC: usize = 0x6d69_7272_6f72_6444;
const NODES: usize = 47;
/// The most addresses of a list.
const MAX_ADDRESSES: usize = 4096;

/// One entry and its address.
#[repr(C)]
struct Node {
    info: addrinfo,
    address: libc::sockaddr_in6,
}

/// What each page holds.
#[repr(C)]
struct Page {
    /// [`MAGIC`], told apart by the page's own place.
    magic: usize,
    /// The list's first page.
    first: *mut Page,
    /// Pages of the list.
    pages: usize,
    /// In the first page: entries that were not given back.
    live: AtomicUsize,
    /// In the first page: the canonical name.
    canonical: [u8; MAX_NAME + 3],
    nodes: [Node; NODES],
}

const _: () = assert!(size_of::<Page>() <= PAGE && align_of::<Page>() <= 16);

/// What is the same in the entries of each address: a type of socket, its protocol and the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// `ai_socktype`.
    pub kind: c_int,
    /// `ai_protocol`.
    pub protocol: c_int,
    /// In the network's order.
    pub port: u16,
}

/// The types of socket that a service is offered on.
#[derive(Debug, Clone, Copy)]
pub struct Services {
    list: [Service; Self::MAX],
    len: usize,
}

impl Services {
    const MAX: usize = 8;

    /// Those of the entries for one address.
    ///
    /// # Safety
    /// The list is one of getaddrinfo(3), or null.
    pub unsafe fn of(mut list: *const addrinfo) -> Self {
        let none = Service { kind: 0, protocol: 0, port: 0 };
        let mut services = Self { list: [none; Self::MAX], len: 0 };
        while let Some(place) = services.list.get_mut(services.len) {
            // SAFETY: an entry of the list, or its end.
            let Some(entry) = (unsafe { list.as_ref() }) else { break };
            // SAFETY: both families have the port in the same place.
            let port = unsafe { (*entry.ai_addr.cast::<libc::sockaddr_in>()).sin_port };
            *place = Service { kind: entry.ai_socktype, protocol: entry.ai_protocol, port };
            services.len = services.len.wrapping_add(1);
            list = entry.ai_next;
        }
        services
    }

    fn iter(&self) -> impl Iterator<Item = &Service> {
        self.list.iter().take(self.len)
    }
}

/// What a list is made of.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a, I> {
    /// In the order of the list.
    pub addresses: I,
    /// Each makes an entry of every address.
    pub services: &'a Services,
    /// `ai_flags` of every entry.
    pub flags: c_int,
    /// `ai_canonname` of the first entry.
    pub canonical: Option<&'a [u8]>,
    /// ... and of every other one.
    pub repeated: bool,
}

impl<I: Iterator<Item = IpAddr> + Clone> Content<'_, I> {
    /// The list; null if it has no entry.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn build(self) -> Result<*mut addrinfo, Errno> {
        let addresses = self.addresses.clone().take(MAX_ADDRESSES);
        let count = addresses.clone().count().wrapping_mul(self.services.len);
        if count == 0 {
            return Ok(core::ptr::null_mut());
        }
        let pages = count.div_ceil(NODES);
        let first: *mut Page = Pages::new(pages.wrapping_mul(PAGE))?.into_start().cast();
        // SAFETY: so many zeroed pages, which are ours alone until they are returned.
        unsafe {
            begin(first, pages, count);
            let name = self.canonical.map_or(core::ptr::null_mut(), |name| canonical(first, name));
            let mut previous: *mut addrinfo = core::ptr::null_mut();
            let services = self.services;
            let entries = addresses.flat_map(|ip| services.iter().map(move |of| (ip, of)));
            for (at, (ip, service)) in entries.enumerate() {
                let node = node(first, at);
                fill(node, ip, service, self.flags);
                if at == 0 || self.repeated {
                    (*node).info.ai_canonname = name;
                }
                if let Some(previous) = previous.as_mut() {
                    previous.ai_next = &raw mut (*node).info;
                }
                previous = &raw mut (*node).info;
            }
            let head = &raw mut (*node(first, 0)).info;
            Ok(head)
        }
    }
}

/// # Safety
/// So many zeroed pages.
unsafe fn begin(first: *mut Page, pages: usize, count: usize) {
    for number in 0..pages {
        // SAFETY: the caller's.
        unsafe {
            let page = first.byte_add(number.wrapping_mul(PAGE));
            (*page).magic = MAGIC ^ page as usize;
            (*page).first = first;
            (*page).pages = pages;
        }
    }
    // SAFETY: the caller's.
    unsafe { (*first).live.store(count, Ordering::Relaxed) };
}

/// # Safety
/// The list has so many entries.
unsafe fn node(first: *mut Page, at: usize) -> *mut Node {
    // SAFETY: the caller's.
    unsafe {
        let page = first.byte_add((at / NODES).wrapping_mul(PAGE));
        (&raw mut (*page).nodes).cast::<Node>().add(at % NODES)
    }
}

/// # Safety
/// The node is zeroed and ours.
unsafe fn fill(node: *mut Node, ip: IpAddr, service: &Service, flags: c_int) {
    // SAFETY: the caller's; an IPv4 address needs less than the room for an IPv6 one.
    unsafe {
        let address = &raw mut (*node).address;
        let (family, len) = match ip {
            IpAddr::V4(ip) => {
                let address = address.cast::<libc::sockaddr_in>();
                (*address).sin_family = libc::AF_INET as libc::sa_family_t;
                (*address).sin_port = service.port;
                (*address).sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
                (libc::AF_INET, size_of::<libc::sockaddr_in>())
            }
            IpAddr::V6(ip) => {
                (*address).sin6_family = libc::AF_INET6 as libc::sa_family_t;
                (*address).sin6_port = service.port;
                (*address).sin6_addr.s6_addr = ip.octets();
                (libc::AF_INET6, size_of::<libc::sockaddr_in6>())
            }
        };
        let info = &raw mut (*node).info;
        (*info).ai_flags = flags;
        (*info).ai_family = family;
        (*info).ai_socktype = service.kind;
        (*info).ai_protocol = service.protocol;
        (*info).ai_addrlen = len as libc::socklen_t;
        (*info).ai_addr = address.cast();
    }
}

/// # Safety
/// The page is a list's first, and zeroed but for its head.
unsafe fn canonical(first: *mut Page, name: &[u8]) -> *mut c_char {
    // SAFETY: the caller's; at least one zero stays behind the name.
    unsafe {
        let place = &raw mut (*first).canonical;
        let len = name.len().min(MAX_NAME);
        core::ptr::copy_nonoverlapping(name.as_ptr(), place.cast(), len);
        place.cast()
    }
}

/// The page of an entry that [`Content::build`] made.
///
/// # Safety
/// It is an entry of a list, of whichever origin.
unsafe fn page_of(entry: *const addrinfo) -> Option<*mut Page> {
    let offset = entry as usize % PAGE;
    let inside = offset.checked_sub(core::mem::offset_of!(Page, nodes))?;
    if inside % size_of::<Node>() != 0 || inside / size_of::<Node>() >= NODES {
        return None;
    }
    let page = entry.wrapping_byte_sub(offset).cast::<Page>().cast_mut();
    // SAFETY: what is in the same page as an entry can be read.
    let magic = unsafe { page.cast::<usize>().read() };
    (magic == MAGIC ^ page as usize).then_some(page)
}

/// Gives an entry back, and with the last one all of its list's pages.
///
/// # Safety
/// [`Content::build`] made the page, and the entry is not used any longer.
unsafe fn release(page: *mut Page) {
    // SAFETY: the page is there as long as one of its list's entries lives.
    unsafe {
        let (first, pages) = ((*page).first, (*page).pages);
        if (*first).live.fetch_sub(1, Ordering::AcqRel) == 1 {
            memory::release(first.cast(), pages.wrapping_mul(PAGE));
        }
    }
}

/// Gives a list back: each entry to whom it came from, for programs join lists and cut them.
///
/// # Safety
/// As freeaddrinfo(3); `original` is the C library's.
pub unsafe fn free(list: *mut addrinfo, original: impl Fn(*mut addrinfo)) {
    // SAFETY: entries of the list, each read before it is given back.
    unsafe {
        let mut entry = list;
        while !entry.is_null() && page_of(entry).is_none() {
            entry = (*entry).ai_next;
        }
        if entry.is_null() {
            return original(list);
        }
        entry = list;
        while !entry.is_null() {
            let next = (*entry).ai_next;
            if let Some(page) = page_of(entry) {
                release(page);
            } else {
                (*entry).ai_next = core::ptr::null_mut();
                original(entry);
            }
            entry = next;
        }
    }
}

/// What the hints of getaddrinfo(3) want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// IPv4 addresses are asked for.
    pub v4: bool,
    /// IPv6 addresses are asked for.
    pub v6: bool,
    /// IPv4 addresses are shown as IPv6 addresses: AI_V4MAPPED.
    mapped: bool,
    /// ... even if there are IPv6 addresses as well: AI_ALL.
    all: bool,
}

impl Wanted {
    /// `None` for a family that the C library refuses.
    pub fn of(family: c_int, flags: c_int) -> Option<Self> {
        let mapped = family == libc::AF_INET6 && flags & libc::AI_V4MAPPED != 0;
        let all = mapped && flags & libc::AI_ALL != 0;
        let (v4, v6) = match family {
            libc::AF_UNSPEC => (true, true),
            libc::AF_INET => (true, false),
            libc::AF_INET6 => (mapped, true),
            _ => return None,
        };
        Some(Self { v4, v6, mapped, all })
    }

    /// The addresses of an answer as the caller gets them.
    pub fn select<I>(self, addresses: I) -> impl Iterator<Item = IpAddr> + Clone
    where
        I: Iterator<Item = IpAddr> + Clone,
    {
        let narrow = !self.mapped || self.all || !addresses.clone().any(|ip| ip.is_ipv6());
        addresses.filter_map(move |ip| match ip {
            IpAddr::V4(ip) if self.mapped => narrow.then(|| IpAddr::V6(ip.to_ipv6_mapped())),
            IpAddr::V4(_) => self.v4.then_some(ip),
            IpAddr::V6(_) => self.v6.then_some(ip),
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "all pointers are those of the test's own values"
)]
#[path = "addrinfo_tests.rs"]
mod tests;
