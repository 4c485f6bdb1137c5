//! The executable's file: its sections, which are not in memory.

use core::ops::Range;
use core::slice;

use super::bytes::{ends, long, says, short, word};
use crate::sys::{self, Fd};

const SHT_SYMTAB: u32 = 2;
/// Bytes of a section's header.
const HEADER: usize = 64;
/// Most sections that are looked at.
const MOST_SECTIONS: usize = 64;
/// Bytes of their names that are looked at.
const NAMES: usize = 2048;
/// Most bytes of a table that is searched.
const MOST: usize = 64 << 20;
/// Bytes of a symbol.
const SYMBOL: usize = 24;
const STT_FUNC: u8 = 2;

/// The file, open.
pub struct File {
    fd: Fd,
    headers: [u8; MOST_SECTIONS * HEADER],
    /// The number of the section that has their names.
    names: usize,
}

#[derive(Clone, Copy)]
struct Section {
    name: usize,
    kind: u32,
    offset: usize,
    len: usize,
    link: usize,
}

impl File {
    /// Of the executable that runs.
    pub fn of_executable() -> Option<Self> {
        let fd = sys::open(c"/proc/self/exe").ok()?;
        let mut head = [0; HEADER];
        read_at(&fd, &mut head, 0)?;
        let (offset, size) = (long(&head, 0x28)?, short(&head, 0x3a)?);
        let count = usize::from(short(&head, 0x3c)?);
        let names = usize::from(short(&head, 0x3e)?);
        if offset == 0 || usize::from(size) != HEADER || count > MOST_SECTIONS {
            return None;
        }
        let mut headers = [0; MOST_SECTIONS * HEADER];
        read_at(&fd, headers.get_mut(..count.checked_mul(HEADER)?)?, offset)?;
        Some(Self { fd, headers, names })
    }

    fn sections(&self) -> impl Iterator<Item = Section> {
        self.headers.as_chunks::<HEADER>().0.iter().filter_map(|header| {
            Some(Section {
                name: word(header, 0)? as usize,
                kind: word(header, 4)?,
                offset: long(header, 24)?,
                len: long(header, 32)?,
                link: word(header, 40)? as usize,
            })
        })
    }

    /// Whether Go's linker made it: it has Go's table of functions, also if it is stripped.
    pub fn is_go(&self) -> bool {
        let Some(names) = self.sections().nth(self.names) else { return false };
        let mut text = [0; NAMES];
        let len = names.len.min(NAMES);
        if text.get_mut(..len).and_then(|text| read_at(&self.fd, text, names.offset)).is_none() {
            return false;
        }
        self.sections().any(|section| ends(&text, section.name, b".gopclntab"))
    }

    /// The address and length of a function by its name, also if no library sees it. Limits to its
    /// place and length spare most of the names, which are many.
    pub fn function(
        &self,
        name: &[u8],
        within: Range<usize>,
        longest: usize,
    ) -> Option<(usize, usize)> {
        let table = self.sections().find(|section| section.kind == SHT_SYMTAB)?;
        let names = self.sections().nth(table.link)?;
        let symbols = Mapped::new(&self.fd, table)?;
        let names = Mapped::new(&self.fd, names)?;
        let (symbols, _) = symbols.bytes().as_chunks::<SYMBOL>();
        symbols.iter().find_map(|symbol| {
            let [.., kind, _, _, _] = *symbol.first_chunk::<8>()?;
            let (address, len) = (long(symbol, 8)?, long(symbol, 16)?);
            if kind & 15 != STT_FUNC || len > longest || !within.contains(&address) {
                return None;
            }
            let at = word(symbol, 0)? as usize;
            says(names.bytes(), at, name).then_some((address, len))
        })
    }
}

fn read_at(fd: &Fd, bytes: &mut [u8], offset: usize) -> Option<()> {
    let arguments = [fd.number() as usize, bytes.as_mut_ptr() as usize, bytes.len(), offset];
    // SAFETY: the slice is ours to write.
    let len = unsafe { sys::call(libc::SYS_pread64, arguments) }.ok()?;
    (len == bytes.len()).then_some(())
}

/// A section's bytes, as long as this lives.
struct Mapped {
    begin: usize,
    len: usize,
    skipped: usize,
}

impl Mapped {
    fn new(fd: &Fd, section: Section) -> Option<Self> {
        let skipped = section.offset & 4095;
        let begin = section.offset.wrapping_sub(skipped);
        let len = section.len.checked_add(skipped).filter(|len| *len <= MOST && section.len > 0)?;
        // Beyond the file's end there is nothing to be read but SIGBUS.
        read_at(fd, &mut [0], section.offset.checked_add(section.len)?.wrapping_sub(1))?;
        let (protection, flags) = (libc::PROT_READ as usize, libc::MAP_PRIVATE as usize);
        let arguments = [0, len, protection, flags, fd.number() as usize, begin];
        // SAFETY: the kernel chooses a free place.
        let begin = unsafe { sys::call(libc::SYS_mmap, arguments) }.ok()?;
        Some(Self { begin, len, skipped })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped so long as this lives; an executable that runs is not written to.
        let all = unsafe { slice::from_raw_parts(self.begin as *const u8, self.len) };
        all.get(self.skipped..).unwrap_or_default()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody has the bytes any more.
        let _ = unsafe { sys::call(libc::SYS_munmap, [self.begin, self.len]) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_by_its_name() {
        let file = File::of_executable().expect("our own executable");
        assert!(!file.is_go());
        let all = 0..usize::MAX;
        let main = file.function(b"main", all.clone(), 4096);
        let (address, len) = main.expect("every program has it");
        assert!(address > 0 && len > 0);
        assert_eq!(file.function(b"main", address..address + 1, 4096), main);
        assert_eq!(file.function(b"mai", all.clone(), 4096), None);
        assert_eq!(file.function(b"main", all, 1), None);
        assert_eq!(file.function(b"main", 0..address, 4096), None);
    }
}
