//! The running executable's build id: what tells one build's image from another's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What `/proc/self/exe` is, as it was linked.
pub const EXECUTABLE: &str = "/proc/self/exe";

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

/// The id that the linker gave it, in hexadecimal; `None` if it gave none.
pub fn build_id(executable: &File) -> io::Result<Option<String>> {
    let header: [u8; 64] = read_at(executable, 0)?;
    if header[..5] != *b"\x7fELF\x02" {
        return Ok(None);
    }
    let table = u64::from_le_bytes(take(&header, 0x20));
    let entry_size = u64::from(u16::from_le_bytes(take(&header, 0x36)));
    let entries = u64::from(u16::from_le_bytes(take(&header, 0x38)));
    for at in 0..entries {
        let entry: [u8; 56] = read_at(executable, table + at * entry_size)?;
        if u32::from_le_bytes(take(&entry, 0)) != PT_NOTE {
            continue;
        }
        let offset = u64::from_le_bytes(take(&entry, 0x08));
        let size = u64::from_le_bytes(take(&entry, 0x20)).min(64 * 1024);
        let mut notes = vec![0; usize::try_from(size).unwrap_or(0)];
        executable.read_exact_at(&mut notes, offset)?;
        if let Some(id) = id_in_notes(&notes) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn read_at<const N: usize>(file: &File, offset: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes.get(at + i).copied().unwrap_or(0))
}

fn id_in_notes(mut notes: &[u8]) -> Option<String> {
    while notes.len() >= 12 {
        let size = |at| usize::try_from(u32::from_le_bytes(take(notes, at))).ok();
        let (name_size, id_size, kind) = (size(0)?, size(4)?, size(8)?);
        let name_end = 12 + name_size.next_multiple_of(4);
        let name = notes.get(12..12 + name_size)?;
        let id = notes.get(name_end..name_end + id_size)?;
        if name == b"GNU\0" && kind == NT_GNU_BUILD_ID as usize {
            return Some(id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(name_end + id_size.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_among_notes() {
        let mut notes = Vec::new();
        for (name, kind, id) in [(&b"abc\0"[..], 3u32, &[9u8; 5][..]), (b"GNU\0", 3, &[0xab, 0xcd])]
        {
            for size in [name.len() as u32, id.len() as u32, kind] {
                notes.extend(size.to_le_bytes());
            }
            notes.extend(name);
            notes.extend(id);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(id_in_notes(&notes).as_deref(), Some("abcd"));
        assert_eq!(id_in_notes(&notes[..20]), None);
    }

    #[test]
    fn the_running_executable_can_be_read() {
        let executable = File::open(EXECUTABLE).expect("our own executable");
        let id = build_id(&executable).expect("readable");
        assert!(id.is_none_or(|id| id.len() >= 16));
    }
}
