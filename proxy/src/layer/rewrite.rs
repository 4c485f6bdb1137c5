//! A static Go program, made into one that has the layer in it: no library can be loaded into it,
//! but all its system calls for sockets go through one place (`mirrord_protocol::layer::golang`).
//!
//! ```text
//!   program ┌─────────────────────────────────┐        blob ┌──────────┐
//!           │ headers · code: Syscall6 · data │   +         │ code     │
//!           └───────────────────┬─────────────┘             │ data     │
//!                               └── jmp ───────────────────►└──────────┘
//! ```
//!
//! The blob is the layer, linked without a libc. It is mapped behind the program's last segment. The file is hostile: nothing in it is believed.

mod blob;
mod elf;
mod table;

use mirrord_protocol::layer::golang;

pub use blob::Blob;
use elf::{Elf, PAGE, Segment};

/// What a rewritten program ends with.
const TRAILER: &[u8; 16] = b"\0mirrord layer 1\0".first_chunk().expect("so many");
/// Bytes of a jump to an address that is a number away (`jmp rel32`).
const JUMP: u64 = 5;

/// Why a program is not rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// It is no ELF file for x86_64, or one that contradicts itself.
    #[error("not an executable for this machine")]
    Malformed,
    /// A dynamic loader loads it, and so the preload library.
    #[error("not a static program")]
    Dynamic,
    /// It is a rewritten one already.
    #[error("already rewritten")]
    Rewritten,
    /// It has no entry to the kernel that we know: no Go program, or one of before Go 1.19.
    #[error("not a program of Go 1.19 or later")]
    NotGo,
    /// Its table of segments cannot be made longer.
    #[error("no room for more segments")]
    NoRoom,
    /// The layer's own part is not what it should be.
    #[error("this build has no layer for static programs")]
    NoBlob,
}

/// Rewrites a program; `path` is where it was found.
///
/// # Errors
/// See [`RewriteError`].
pub fn rewrite(program: &[u8], blob: &Blob, path: &[u8]) -> Result<Vec<u8>, RewriteError> {
    if program.ends_with(TRAILER) {
        return Err(RewriteError::Rewritten);
    }
    let elf = Elf::parse(program)?;
    if elf.is_dynamic() {
        return Err(RewriteError::Dynamic);
    }
    let entry = entry(&elf).ok_or(RewriteError::NotGo)?;
    let base = page_up(elf.end()?)?;
    let resume = entry.address + golang::RESUME as u64;
    let mut rewritten = program.to_vec();
    let mut added = Vec::new();
    for part in blob.parts(base, resume, path)? {
        let segment = append(&mut rewritten, part.segment, &part.bytes)?;
        added.push(segment);
    }
    table::extend(&elf, &mut rewritten, &added)?;
    let jump = jump(entry.address, base.checked_add(blob.entry()).ok_or(RewriteError::Malformed)?)?;
    write(&mut rewritten, entry.offset, &jump)?;
    rewritten.extend_from_slice(TRAILER);
    Ok(rewritten)
}

/// Go's entry to the kernel.
struct Entry {
    address: u64,
    offset: u64,
}

fn entry(elf: &Elf<'_>) -> Option<Entry> {
    elf.loaded().filter(|segment| segment.is_code()).find_map(|segment| {
        let code = elf.bytes_of(segment)?;
        // Functions are aligned in memory, not in the segment.
        let skipped = segment.address.wrapping_neg() % 16;
        let at = golang::entry(code.get(usize::try_from(skipped).ok()?..)?)?;
        let at = skipped.checked_add(at as u64)?;
        Some(Entry {
            address: segment.address.checked_add(at)?,
            offset: segment.offset.checked_add(at)?,
        })
    })
}

/// Puts a segment's bytes at the end of the file, where the kernel can map them from.
fn append(file: &mut Vec<u8>, segment: Segment, bytes: &[u8]) -> Result<Segment, RewriteError> {
    let begin = page_up(file.len() as u64)?;
    let offset = begin.checked_add(segment.address % PAGE).ok_or(RewriteError::Malformed)?;
    file.resize(usize::try_from(offset).map_err(|_| RewriteError::Malformed)?, 0);
    file.extend_from_slice(bytes);
    Ok(Segment { offset, file_len: bytes.len() as u64, ..segment })
}

fn jump(from: u64, to: u64) -> Result<[u8; 5], RewriteError> {
    let next = from.checked_add(JUMP).ok_or(RewriteError::Malformed)?;
    let distance = i64::try_from(to.wrapping_sub(next)).map_err(|_| RewriteError::Malformed)?;
    let distance = i32::try_from(distance).map_err(|_| RewriteError::Malformed)?;
    let [a, b, c, d] = distance.to_le_bytes();
    Ok([0xe9, a, b, c, d])
}

fn page_up(address: u64) -> Result<u64, RewriteError> {
    address.checked_next_multiple_of(PAGE).ok_or(RewriteError::Malformed)
}

fn write(file: &mut [u8], offset: u64, bytes: &[u8]) -> Result<(), RewriteError> {
    let offset = usize::try_from(offset).map_err(|_| RewriteError::Malformed)?;
    let place = file.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
    place.ok_or(RewriteError::Malformed)?.copy_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests;
