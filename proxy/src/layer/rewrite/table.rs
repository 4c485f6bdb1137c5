//! A longer table of segments in the place of a program's own.

use super::elf::{Elf, HEADER, MOST_HEADERS, Segment};
use super::{RewriteError, write};

const PT_NOTE: u32 = 4;
const PT_PHDR: u32 = 6;
const PT_GNU_PROPERTY: u32 = 0x6474_e553;
const PT_PAX_FLAGS: u32 = 0x6504_1580;
/// Where the place of the table of sections stands.
const SECTIONS: u64 = 40;
/// Where the number of segments stands.
const COUNT: u64 = 56;

/// Adds segments to a program's table: behind it where nothing is, otherwise in the place of those
/// that no program needs to run.
pub fn extend(elf: &Elf<'_>, file: &mut Vec<u8>, added: &[Segment]) -> Result<(), RewriteError> {
    let mut segments = elf.segments().to_vec();
    let wanted = segments.len() + added.len();
    let mut surplus = wanted.saturating_sub(room(elf, wanted));
    for kind in [PT_PAX_FLAGS, PT_GNU_PROPERTY, PT_NOTE] {
        segments.retain(|segment| {
            let leaves = surplus > 0 && segment.kind == kind;
            surplus -= usize::from(leaves);
            !leaves
        });
    }
    if surplus > 0 {
        return Err(RewriteError::NoRoom);
    }
    // The kernel wants those of memory in the order of their addresses.
    let last = segments.iter().rposition(Segment::is_loaded).ok_or(RewriteError::Malformed)?;
    segments.splice(last + 1..last + 1, added.iter().copied());
    let count = u16::try_from(segments.len()).map_err(|_| RewriteError::Malformed)?;
    for segment in segments.iter_mut().filter(|segment| segment.kind == PT_PHDR) {
        (segment.file_len, segment.memory_len) =
            (u64::from(count) * HEADER, u64::from(count) * HEADER);
    }
    move_sections(elf, file)?;
    let table: Vec<u8> = segments.iter().flat_map(Segment::encode).collect();
    write(file, elf.table, &table)?;
    write(file, COUNT, &count.to_le_bytes())
}

/// Moves the table of sections to the end: Go's linker puts it behind that of segments.
fn move_sections(elf: &Elf<'_>, file: &mut Vec<u8>) -> Result<(), RewriteError> {
    let Some(sections) = elf.sections() else { return Ok(()) };
    file.resize(file.len().next_multiple_of(8), 0);
    let place = file.len() as u64;
    file.extend_from_slice(elf.part(&sections).unwrap_or_default());
    write(file, SECTIONS, &place.to_le_bytes())
}

/// How many headers the table can have, up to so many.
fn room(elf: &Elf<'_>, wanted: usize) -> usize {
    let now = elf.segments().len();
    let place = |count: usize| elf.table.checked_add(count as u64 * HEADER);
    let fits = |count: usize| {
        count <= usize::from(MOST_HEADERS)
            && place(now).zip(place(count)).is_some_and(|(begin, end)| elf.is_free(&(begin..end)))
    };
    (now + 1..=wanted).rev().find(|count| fits(*count)).unwrap_or(now)
}
