//! The executable as it lies in memory: where the kernel says that its program headers are (elf(5),
//! getauxval(3)).

use core::slice;

use super::bytes::{long, word};
use crate::sys;

/// Bytes of a program header.
const HEADER: usize = 56;
/// Most that are looked at.
const MOST_HEADERS: usize = 64;
const FILE_HEADER: usize = 64;
const AT_PHDR: usize = 3;
const AT_PHNUM: usize = 5;

/// The executable's segments.
pub struct Image {
    headers: &'static [u8],
    bias: usize,
}

/// A part of it.
#[derive(Clone, Copy)]
pub struct Segment {
    kind: u32,
    flags: u32,
    offset: usize,
    address: usize,
    file_len: usize,
    memory_len: usize,
}

impl Image {
    /// Of the executable that the kernel started.
    pub fn of_executable() -> Option<Self> {
        let mut vector = [0; 1024];
        let file = sys::open(c"/proc/self/auxv").ok()?;
        let len = sys::read(&file, &mut vector).ok()?;
        let (entries, _) = vector.get(..len)?.as_chunks::<16>();
        let value = |wanted| {
            let entry = entries.iter().find(|entry| long(*entry, 0) == Some(wanted))?;
            long(entry, 8)
        };
        let (address, count) = (value(AT_PHDR)?, value(AT_PHNUM)?);
        if address == 0 || count == 0 || count > MOST_HEADERS {
            return None;
        }
        // SAFETY: the kernel has mapped so many headers there, and nobody unmaps the executable.
        let headers = unsafe { slice::from_raw_parts(address as *const u8, count * HEADER) };
        let mut image = Self { headers, bias: 0 };
        image.bias = image.bias_of(address)?;
        Some(image)
    }

    /// What is to be added to the addresses in the file.
    fn bias_of(&self, address: usize) -> Option<usize> {
        let own = self.segments().find(|segment| segment.kind == libc::PT_PHDR);
        if let Some(own) = own {
            return Some(address.wrapping_sub(own.address));
        }
        let first = self.loaded().find(|segment| segment.offset == 0)?;
        Some(address.wrapping_sub(FILE_HEADER).wrapping_sub(first.address))
    }

    fn segments(&self) -> impl Iterator<Item = Segment> {
        self.headers.as_chunks::<HEADER>().0.iter().filter_map(|header| {
            Some(Segment {
                kind: word(header, 0)?,
                flags: word(header, 4)?,
                offset: long(header, 8)?,
                address: long(header, 16)?,
                file_len: long(header, 32)?,
                memory_len: long(header, 40)?,
            })
        })
    }

    fn loaded(&self) -> impl Iterator<Item = Segment> {
        self.segments().filter(|segment| segment.kind == libc::PT_LOAD)
    }

    /// The segments that are executed, each with where it begins in memory.
    pub fn code(&self) -> impl Iterator<Item = (usize, &'static [u8])> {
        let wanted = libc::PF_R | libc::PF_X;
        let code = self.loaded().filter(move |segment| segment.flags & wanted == wanted);
        code.map(|segment| {
            let address = self.bias.wrapping_add(segment.address);
            // SAFETY: the kernel has mapped it to be read, and nobody unmaps the executable.
            (address, unsafe { slice::from_raw_parts(address as *const u8, segment.file_len) })
        })
    }

    /// Where the dynamic section lies in memory, and its length.
    pub fn dynamic(&self) -> Option<&'static [u8]> {
        let segment = self.segments().find(|segment| segment.kind == libc::PT_DYNAMIC)?;
        let whole = self.rest_of(segment.address)?;
        whole.get(..segment.memory_len)
    }

    /// What is to be read from an address of the file on, to the end of its segment.
    pub fn rest_of(&self, address: usize) -> Option<&'static [u8]> {
        let holds = |segment: &Segment| {
            let at = address.checked_sub(segment.address);
            segment.flags & libc::PF_R != 0 && at.is_some_and(|at| at < segment.memory_len)
        };
        let segment = self.loaded().find(holds)?;
        let len = segment.memory_len.checked_sub(address.wrapping_sub(segment.address))?;
        let place = self.bias.wrapping_add(address) as *const u8;
        // SAFETY: the kernel has mapped it to be read, and nobody unmaps the executable.
        Some(unsafe { slice::from_raw_parts(place, len) })
    }

    /// The same, for an address that a dynamic loader may already have made one of memory.
    pub fn rest_of_either(&self, address: usize) -> Option<&'static [u8]> {
        self.rest_of(address.wrapping_sub(self.bias)).or_else(|| self.rest_of(address))
    }

    /// Where an address of the file is in memory, if so many bytes of code are there.
    pub fn code_at(&self, address: usize, len: usize) -> Option<usize> {
        let place = self.bias.wrapping_add(address);
        self.holds_code(place, len).then_some(place)
    }

    /// Whether so many bytes of code are at a place in memory.
    pub fn holds_code(&self, place: usize, len: usize) -> bool {
        self.code().any(|(begin, code)| {
            let at = place.checked_sub(begin);
            at.and_then(|at| code.get(at..)).is_some_and(|rest| rest.len() >= len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_ours_lies_in_the_code() {
        let image = Image::of_executable().expect("our own executable");
        let place = a_function_of_ours_lies_in_the_code as *const () as usize;
        assert!(image.holds_code(place, 8));
        assert_eq!(image.code_at(place.wrapping_sub(image.bias), 8), Some(place));
        assert!(!image.holds_code((&raw const image) as usize, 1), "the stack is no code");
        assert!(!image.holds_code(place, usize::MAX));
        assert!(image.rest_of(usize::MAX).is_none());
    }
}
