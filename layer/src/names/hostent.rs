//! A `struct hostent` (gethostbyname(3)) in memory that the caller has.

use core::ffi::{c_char, c_int};
use core::net::IpAddr;

/// There is not room enough: ERANGE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall;

/// A family of addresses that a `struct hostent` can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

impl Family {
    /// `None` for another one.
    pub fn of(number: c_int) -> Option<Self> {
        match number {
            libc::AF_INET => Some(Self::V4),
            libc::AF_INET6 => Some(Self::V6),
            _ => None,
        }
    }

    fn parts(self) -> (c_int, usize) {
        match self {
            Self::V4 => (libc::AF_INET, 4),
            Self::V6 => (libc::AF_INET6, 16),
        }
    }

    /// Whether an address is of this family.
    pub fn holds(self, ip: &IpAddr) -> bool {
        matches!((self, ip), (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)))
    }
}

/// What a `struct hostent` says.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a, I> {
    /// The canonical name.
    pub name: &'a [u8],
    /// The name that was asked for: an alias, unless it is the same.
    pub asked: &'a [u8],
    /// Of all addresses in it.
    pub family: Family,
    /// Those of another family are left out.
    pub addresses: I,
}

/// Hands out parts of a buffer.
struct Room {
    at: *mut u8,
    left: usize,
}

impl Room {
    fn take(&mut self, len: usize) -> Result<*mut u8, TooSmall> {
        let start = self.at;
        self.left = self.left.checked_sub(len).ok_or(TooSmall)?;
        self.at = start.wrapping_add(len);
        Ok(start)
    }

    /// For as many pointers; must come before what is no multiple of one.
    fn pointers(&mut self, count: usize) -> Result<*mut *mut c_char, TooSmall> {
        let len = count.checked_mul(size_of::<usize>()).ok_or(TooSmall)?;
        Ok(self.take(len)?.cast())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<*mut c_char, TooSmall> {
        let start = self.take(bytes.len())?;
        // SAFETY: `take` found room for it.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        Ok(start.cast())
    }

    fn text(&mut self, bytes: &[u8]) -> Result<*mut c_char, TooSmall> {
        let start = self.put(bytes)?;
        self.put(&[0])?;
        Ok(start)
    }
}

impl<I: Iterator<Item = IpAddr> + Clone> Host<'_, I> {
    /// The structure, whose parts are in the buffer.
    ///
    /// # Errors
    /// The buffer is too small.
    ///
    /// # Safety
    /// Both are the caller's to write; the buffer outlives what is made of the structure.
    pub unsafe fn write(
        self,
        host: *mut libc::hostent,
        buffer: *mut u8,
        len: usize,
    ) -> Result<(), TooSmall> {
        let gap = buffer.align_offset(align_of::<usize>());
        let mut room = Room { at: buffer, left: len };
        room.take(gap)?;
        let (family, size) = self.family.parts();
        let wanted = self.addresses.clone().filter(|ip| self.family.holds(ip));
        let aliased = !self.asked.eq_ignore_ascii_case(self.name);
        let list = room.pointers(wanted.clone().count().wrapping_add(1))?;
        let aliases = room.pointers(1 + usize::from(aliased))?;
        let mut next = list;
        for ip in wanted {
            let place = match ip {
                IpAddr::V4(ip) => room.put(&ip.octets())?,
                IpAddr::V6(ip) => room.put(&ip.octets())?,
            };
            // SAFETY: `list` has a place for each, and one more.
            next = unsafe {
                next.write(place);
                next.add(1)
            };
        }
        let name = room.text(self.name)?;
        let alias = if aliased { room.text(self.asked)? } else { core::ptr::null_mut() };
        // SAFETY: the arrays' last places; the caller's structure.
        unsafe {
            next.write(core::ptr::null_mut());
            aliases.write(alias);
            if aliased {
                aliases.add(1).write(core::ptr::null_mut());
            }
            host.write(libc::hostent {
                h_name: name,
                h_aliases: aliases,
                h_addrtype: family,
                h_length: size as c_int,
                h_addr_list: list,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "all pointers are those of the test's own values"
)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    type Read = (String, Vec<String>, c_int, Vec<Vec<u8>>);

    fn written(
        asked: &str,
        name: &str,
        family: Family,
        ips: &[&str],
        len: usize,
    ) -> Result<Read, TooSmall> {
        let addresses = ips.iter().map(|ip| ip.parse().expect("an address"));
        let mut buffer = vec![0xaau8; len + 16];
        let mut host: libc::hostent = unsafe { std::mem::zeroed() };
        let what = Host { name: name.as_bytes(), asked: asked.as_bytes(), family, addresses };
        // One off, so that it must be aligned.
        let start = buffer[1..].as_mut_ptr();
        // SAFETY: the buffer is longer than it says.
        unsafe { what.write(&mut host, start, len)? };
        assert!(buffer[1 + len..].iter().all(|byte| *byte == 0xaa), "written behind the end");
        let text =
            |text: *mut c_char| unsafe { CStr::from_ptr(text) }.to_str().expect("text").to_owned();
        let list = |array: *mut *mut c_char| {
            (0..).map(move |at| unsafe { *array.add(at) }).take_while(|place| !place.is_null())
        };
        let bytes = |place: *mut c_char| unsafe {
            std::slice::from_raw_parts(place.cast::<u8>(), host.h_length as usize).to_vec()
        };
        Ok((
            text(host.h_name),
            list(host.h_aliases).map(text).collect(),
            host.h_addrtype,
            list(host.h_addr_list).map(bytes).collect(),
        ))
    }

    #[test]
    fn a_host_has_names_and_addresses_of_one_family() {
        let ips = ["10.0.0.1", "2001:db8::1", "10.0.0.2"];
        let (name, aliases, family, addresses) =
            written("db", "db.example", Family::V4, &ips, 256).expect("room");
        assert_eq!((&*name, &*aliases), ("db.example", &["db".to_owned()][..]));
        assert_eq!(family, libc::AF_INET);
        assert_eq!(addresses, [[10, 0, 0, 1], [10, 0, 0, 2]]);
        let (_, aliases, family, addresses) =
            written("DB", "db", Family::V6, &ips, 256).expect("room");
        assert!(aliases.is_empty());
        assert_eq!((family, addresses.len(), addresses[0].len()), (libc::AF_INET6, 1, 16));
    }

    #[test]
    fn any_buffer_is_enough_or_too_small() {
        let ips = ["10.0.0.1", "10.0.0.2"];
        let fits: Vec<_> = (0..128)
            .map(|len| written("db", "db.example", Family::V4, &ips, len).is_ok())
            .collect();
        let first = fits.iter().position(|fits| *fits).expect("enough at last");
        assert!(fits[first..].iter().all(|fits| *fits));
        assert_eq!(written("db", "db.example", Family::V4, &ips, first - 1), Err(TooSmall));
    }
}
