use super::*;

/// A file with these segments, their bytes one after the other from the second page on.
fn file(kind: u16, entry: u64, segments: &[(u32, u32, u64, &[u8], u64)]) -> Vec<u8> {
    let mut bytes = vec![0; PAGE as usize];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16..18].copy_from_slice(&kind.to_le_bytes());
    bytes[18] = 62;
    bytes[24..32].copy_from_slice(&entry.to_le_bytes());
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = segments.len() as u8;
    for (number, (kind, flags, address, content, more)) in segments.iter().enumerate() {
        let segment = Segment {
            kind: *kind,
            flags: *flags,
            offset: bytes.len() as u64,
            address: *address,
            file_len: content.len() as u64,
            memory_len: content.len() as u64 + more,
            align: PAGE,
        };
        bytes[64 + number * 56..][..56].copy_from_slice(&segment.encode());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
    }
    bytes
}

const SYSCALL: &[u8] =
    b"\x49\x89\xf2\x48\x89\xfa\x48\x89\xce\x48\x89\xdf\x0f\x05\x48\x3d\x01\xf0\xff\xff";

fn go() -> Vec<u8> {
    let mut code = vec![0xcc; 0x40];
    code.extend_from_slice(SYSCALL);
    file(
        2,
        0x40_1000,
        &[
            (6, 4, 0x40_0040, b"", 0),
            (1, 5, 0x40_1000, &code, 0),
            (1, 6, 0x40_3000, b"data", 0x5000),
            (4, 4, 0, b"note", 0),
        ],
    )
}

/// Code whose entry is at 0x10, and a head at 0x2010.
fn blob() -> Vec<u8> {
    let mut code = vec![0; 0x20];
    code[8..16].copy_from_slice(&(0x2010u64 - 8).to_le_bytes());
    file(3, 0x10, &[(1, 5, 0, &code, 0), (1, 6, 0x2000, b"", 0x800)])
}

#[test]
fn a_go_program_gets_the_layer_and_jumps_into_it() {
    let (program, blob) = (go(), blob());
    let blob = Blob::parse(&blob).expect("a blob");
    let rewritten = rewrite(&program, &blob, b"/bin/app").expect("a Go program");
    let elf = Elf::parse(&rewritten).expect("an ELF file");
    let loaded: Vec<_> = elf.loaded().copied().collect();
    assert_eq!(loaded.len(), 4);
    assert!(loaded.is_sorted_by_key(|segment| segment.address));
    assert!(loaded.iter().all(|segment| segment.offset % PAGE == segment.address % PAGE));
    let base = 0x40_9000;
    assert_eq!((loaded[2].address, loaded[3].address), (base, base + 0x2000));
    assert_eq!(elf.segments()[0].file_len, 6 * 56, "the table's own length");

    let code = elf.bytes_of(&loaded[0]).expect("its bytes");
    let distance = i32::from_le_bytes(*code[0x41..].first_chunk().expect("4 bytes"));
    assert_eq!(code[0x40], 0xe9);
    assert_eq!(0x40_1045 + i64::from(distance), base as i64 + 0x10);

    let data = elf.bytes_of(&loaded[3]).expect("its bytes");
    let head = base + 0x2010;
    let resume = i64::from_le_bytes(*data[0x10..].first_chunk().expect("8 bytes"));
    assert_eq!(head as i64 + resume, 0x40_1040 + 12);
    assert!(data[0x18..].starts_with(b"/bin/app\0"));
    assert_eq!(rewrite(&rewritten, &blob, b""), Err(RewriteError::Rewritten));
}

#[test]
fn notes_make_room_where_the_table_ends_at_something() {
    let blob = blob();
    let blob = Blob::parse(&blob).expect("a blob");
    let mut program = go();
    program[64 + 4 * 56] = 1;
    assert_eq!(rewrite(&program, &blob, b""), Err(RewriteError::NoRoom), "one note is too few");
    program[64] = 4;
    let rewritten = rewrite(&program, &blob, b"").expect("two are enough");
    let elf = Elf::parse(&rewritten).expect("an ELF file");
    assert!(elf.segments().iter().all(Segment::is_loaded) && elf.segments().len() == 4);
}

#[test]
fn other_programs_are_told_apart() {
    let blob = blob();
    let blob = Blob::parse(&blob).expect("a blob");
    let error = |program: &[u8]| rewrite(program, &blob, b"").expect_err("no such program");
    assert_eq!(error(b"#!/bin/sh\n"), RewriteError::Malformed);
    assert_eq!(error(&file(2, 0, &[(1, 5, 0x1000, b"\xc3", 0)])), RewriteError::NotGo);
    let dynamic = file(2, 0, &[(1, 5, 0x1000, SYSCALL, 0), (3, 4, 0, b"/lib/ld.so\0", 0)]);
    assert_eq!(error(&dynamic), RewriteError::Dynamic);
    assert_eq!(Blob::parse(b"").expect_err("empty"), RewriteError::NoBlob);
}

proptest::proptest! {
    #[test]
    fn nothing_in_a_file_makes_it_panic(
        changes in proptest::collection::vec((0usize..512, proptest::num::u8::ANY), 0..12),
        len in 0usize..0x4000,
    ) {
        let (mut program, layer) = (go(), blob());
        for (at, byte) in &changes {
            program[*at] = *byte;
        }
        program.truncate(len.max(0x100));
        let layer = Blob::parse(&layer).expect("a blob");
        if let Ok(rewritten) = rewrite(&program, &layer, b"/x") {
            proptest::prop_assert!(Elf::parse(&rewritten).is_ok());
        }
        let _ = Blob::parse(&program).map(|odd| rewrite(&go(), &odd, b"/x"));
    }
}
