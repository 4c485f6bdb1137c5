//! As much of an ELF file as the kernel looks at (elf(5)), and its sections' places.

use std::ops::Range;

use super::RewriteError;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of a program header.
pub const HEADER: u64 = 56;
/// Most program headers that the kernel takes in a page.
pub const MOST_HEADERS: u16 = 73;
/// Bytes of a section's header.
const SECTION: u64 = 64;
/// No program reaches so far up: it would meet the stack.
const END: u64 = 1 << 46;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const SHT_NOBITS: u32 = 8;
const PF_X: u32 = 1;
const PF_W: u32 = 2;

/// A file that may be one.
pub struct Elf<'a> {
    bytes: &'a [u8],
    segments: Vec<Segment>,
    /// Where the program headers are.
    pub table: u64,
}

/// A program header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its type.
    pub kind: u32,
    /// What may be done with it.
    pub flags: u32,
    /// Where it is in the file.
    pub offset: u64,
    /// Where it is in memory.
    pub address: u64,
    /// Bytes in the file.
    pub file_len: u64,
    /// Bytes in memory.
    pub memory_len: u64,
    /// What its place is a multiple of.
    pub align: u64,
}

impl Segment {
    fn parse(bytes: &[u8], at: u64) -> Option<Self> {
        Some(Self {
            kind: word(bytes, at)?,
            flags: word(bytes, at.checked_add(4)?)?,
            offset: long(bytes, at.checked_add(8)?)?,
            address: long(bytes, at.checked_add(16)?)?,
            file_len: long(bytes, at.checked_add(32)?)?,
            memory_len: long(bytes, at.checked_add(40)?)?,
            align: long(bytes, at.checked_add(48)?)?,
        })
    }

    /// As it stands in a file.
    pub fn encode(&self) -> Vec<u8> {
        let fields =
            [self.offset, self.address, self.address, self.file_len, self.memory_len, self.align];
        let head = [self.kind, self.flags].into_iter().flat_map(u32::to_le_bytes);
        head.chain(fields.into_iter().flat_map(u64::to_le_bytes)).collect()
    }

    /// Whether it is in memory.
    pub fn is_loaded(&self) -> bool {
        self.kind == PT_LOAD
    }

    /// Whether it is executed.
    pub fn is_code(&self) -> bool {
        self.flags & PF_X != 0
    }

    /// Whether it is written to.
    pub fn is_data(&self) -> bool {
        self.flags & PF_W != 0
    }

    /// Whether so many bytes of code lie at an address.
    pub fn is_code_at(&self, address: u64, len: u64) -> bool {
        self.is_code() && self.holds(address, len)
    }

    /// Whether so many bytes of data lie at an address.
    pub fn is_data_at(&self, address: u64, len: u64) -> bool {
        self.is_data() && self.holds(address, len)
    }

    fn holds(&self, address: u64, len: u64) -> bool {
        let at = address.checked_sub(self.address);
        at.and_then(|at| at.checked_add(len)).is_some_and(|end| end <= self.memory_len)
    }
}

impl<'a> Elf<'a> {
    /// Reads the headers.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RewriteError> {
        Self::read(bytes).ok_or(RewriteError::Malformed)
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let is_known = bytes.starts_with(b"\x7fELF\x02\x01\x01")
            && matches!(short(bytes, 16)?, ET_EXEC | ET_DYN)
            && short(bytes, 18)? == EM_X86_64
            && u64::from(short(bytes, 54)?) == HEADER;
        let (table, count) = (long(bytes, 32)?, short(bytes, 56)?);
        if !is_known || count == 0 || count > MOST_HEADERS {
            return None;
        }
        let segments: Option<Vec<_>> = (0..u64::from(count))
            .map(|number| Segment::parse(bytes, table.checked_add(number * HEADER)?))
            .collect();
        Some(Self { bytes, segments: segments?, table })
    }

    /// Its program headers.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What is in memory.
    pub fn loaded(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.is_loaded())
    }

    /// Whether it names a dynamic loader.
    pub fn is_dynamic(&self) -> bool {
        self.segments.iter().any(|segment| segment.kind == PT_INTERP)
    }

    /// A segment's bytes in the file.
    pub fn bytes_of(&self, segment: &Segment) -> Option<&'a [u8]> {
        let begin = usize::try_from(segment.offset).ok()?;
        self.bytes.get(begin..)?.get(..usize::try_from(segment.file_len).ok()?)
    }

    /// The first address behind all that is in memory.
    pub fn end(&self) -> Result<u64, RewriteError> {
        let ends = self.loaded().map(|segment| segment.address.checked_add(segment.memory_len));
        let end = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().max());
        end.filter(|end| *end < END).ok_or(RewriteError::Malformed)
    }

    /// Where the table of sections is, which nothing needs to run the program.
    pub fn sections(&self) -> Option<Range<u64>> {
        let (begin, count) = (long(self.bytes, 40)?, short(self.bytes, 60)?);
        let end = begin.checked_add(u64::from(count) * SECTION)?;
        self.part(&(begin..end))?;
        (begin > 0 && count > 0).then_some(begin..end)
    }

    /// A part of the file.
    pub fn part(&self, part: &Range<u64>) -> Option<&'a [u8]> {
        self.bytes.get(usize::try_from(part.start).ok()?..usize::try_from(part.end).ok()?)
    }

    /// Whether nothing is in a part of the file but the table of sections, and zeros that are
    /// nobody's.
    pub fn is_free(&self, part: &Range<u64>) -> bool {
        let table = self.sections().unwrap_or_default();
        let bytes = self.part(part).into_iter().flatten().zip(part.clone());
        let mut others = bytes.filter(|(_, at)| !table.contains(at));
        self.part(part).is_some()
            && others.all(|(byte, _)| *byte == 0)
            && !self.segments.iter().any(|segment| {
                !segment.is_loaded() && overlap(part, segment.offset, segment.file_len)
            })
            && !self.is_in_section(part, &table)
    }

    fn is_in_section(&self, part: &Range<u64>, table: &Range<u64>) -> bool {
        let headers = self.part(table).unwrap_or_default();
        headers.as_chunks::<{ SECTION as usize }>().0.iter().any(|header| {
            let (offset, len) = (long(header, 24), long(header, 32));
            let is_there = word(header, 4) != Some(SHT_NOBITS);
            is_there && offset.zip(len).is_some_and(|(offset, len)| overlap(part, offset, len))
        })
    }
}

fn overlap(part: &Range<u64>, offset: u64, len: u64) -> bool {
    len > 0 && offset < part.end && part.start < offset.saturating_add(len)
}

/// 2 bytes of a file.
pub fn short(bytes: &[u8], at: u64) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// 4 bytes of a file.
pub fn word(bytes: &[u8], at: u64) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// 8 bytes of a file.
pub fn long(bytes: &[u8], at: u64) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

fn array<const LEN: usize>(bytes: &[u8], at: u64) -> Option<[u8; LEN]> {
    bytes.get(usize::try_from(at).ok()?..)?.first_chunk().copied()
}
