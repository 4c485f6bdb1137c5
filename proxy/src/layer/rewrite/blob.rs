//! The layer for static programs, as its build leaves it: an ELF file of a few segments that wants
//! nothing of a loader. Its entry point is what Go's entry jumps to; the 8 bytes before say how far
//! from themselves its *head* is, which is filled in here.

use super::RewriteError;
use super::elf::{Elf, Segment, long};

/// Bytes of the head: how far from its beginning Go's entry goes on (8 bytes), and the program's
/// path, NUL-terminated.
const HEAD: usize = 1024;
const HEAD_PATH: usize = 8;
/// Most bytes of it all in memory.
const MOST: u64 = 16 << 20;

/// It, checked.
#[derive(Debug)]
pub struct Blob {
    segments: Vec<Part>,
    entry: u64,
    head: u64,
}

/// A segment that is added to a program.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it will be in memory.
    pub segment: Segment,
    /// What it begins with.
    pub bytes: Vec<u8>,
}

impl Part {
    /// Takes another one in that follows, if neither is written to: a program's table has little
    /// room.
    fn merge(&mut self, next: &Segment, bytes: &[u8]) -> bool {
        let distance = next.address.checked_sub(self.segment.address);
        let Some(distance) = distance.and_then(|distance| usize::try_from(distance).ok()) else {
            return false;
        };
        if self.segment.is_data() || next.is_data() || distance < self.bytes.len() {
            return false;
        }
        self.bytes.resize(distance, 0);
        self.bytes.extend_from_slice(bytes);
        self.segment.flags |= next.flags;
        self.segment.memory_len = self.bytes.len() as u64;
        true
    }
}

impl Blob {
    /// Checks it.
    ///
    /// # Errors
    /// It is empty, or no such file.
    pub fn parse(bytes: &[u8]) -> Result<Self, RewriteError> {
        Self::read(bytes).ok_or(RewriteError::NoBlob)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let elf = Elf::parse(bytes).ok()?;
        if elf.end().ok()? > MOST {
            return None;
        }
        let entry = long(bytes, 24)?;
        let mut segments: Vec<Part> = Vec::new();
        for segment in elf.loaded() {
            let bytes = elf.bytes_of(segment)?;
            if !segments.last_mut().is_some_and(|last| last.merge(segment, bytes)) {
                segments.push(Part { segment: *segment, bytes: bytes.to_vec() });
            }
        }
        let word = entry.checked_sub(8)?;
        let code = segments.iter().find(|part| part.segment.is_code_at(word, 16))?;
        let head = word.wrapping_add(long(&code.bytes, word - code.segment.address)?);
        let has_head = segments.iter().any(|part| part.segment.is_data_at(head, HEAD as u64));
        has_head.then_some(Self { segments, entry, head })
    }

    /// Where it is entered, from its base.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Its segments at a base, with the head filled in.
    pub fn parts(&self, base: u64, resume: u64, path: &[u8]) -> Result<Vec<Part>, RewriteError> {
        let parts: Option<Vec<_>> = self
            .segments
            .iter()
            .map(|part| {
                let Part { segment, mut bytes } = part.clone();
                if segment.is_data_at(self.head, HEAD as u64) {
                    let at = usize::try_from(self.head - segment.address).ok()?;
                    let resume = resume.wrapping_sub(base.checked_add(self.head)?);
                    bytes.resize(bytes.len().max(at + HEAD), 0);
                    fill(bytes.get_mut(at..)?, resume, path)?;
                }
                let address = base.checked_add(segment.address)?;
                Some(Part { segment: Segment { address, ..segment }, bytes })
            })
            .collect();
        parts.ok_or(RewriteError::NoBlob)
    }
}

fn fill(head: &mut [u8], resume: u64, path: &[u8]) -> Option<()> {
    let (distance, rest) = head.split_first_chunk_mut()?;
    *distance = resume.to_le_bytes();
    let path = if path.len() < HEAD - HEAD_PATH { path } else { b"" };
    rest.get_mut(..path.len())?.copy_from_slice(path);
    Some(())
}
