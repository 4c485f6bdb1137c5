//! What a program's file is, as far as a library can be loaded into it: elf(5), execve(2), and
//! ld.so(8).

/// The bytes of a file, wherever they are wanted.
pub trait Source {
    /// How many bytes were there.
    fn read(&self, at: u64, into: &mut [u8]) -> usize;
}

/// What a program's file is.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is no heap to put it on")]
pub enum Kind {
    /// A dynamic loader reads it, or it is one.
    Dynamic,
    /// Nothing is loaded into it but itself.
    Static,
    /// Another program reads it.
    Script(Script),
    /// Of another machine, or nothing that we know.
    Other,
}

/// As much of a script as the kernel looks at (BINPRM_BUF_SIZE).
const LINE: usize = 256;

/// The first line of a script.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    /// Its words, each NUL-terminated.
    line: [u8; LINE],
    interpreter: usize,
    argument: Option<usize>,
}

impl Script {
    /// Who reads it, NUL-terminated.
    pub fn interpreter(&self) -> &[u8] {
        self.word(self.interpreter)
    }

    /// What the interpreter gets before the script's own path, NUL-terminated.
    pub fn argument(&self) -> Option<&[u8]> {
        self.argument.map(|at| self.word(at))
    }

    fn word(&self, at: usize) -> &[u8] {
        self.line.get(at..).unwrap_or_default()
    }

    /// `None` if the kernel does not take it either.
    fn parse(head: &[u8]) -> Option<Self> {
        let (mut line, mut len) = ([0; LINE], 0);
        let text = head.strip_prefix(b"#!")?;
        for (to, from) in line.iter_mut().zip(text).take(LINE - 3) {
            if matches!(from, b'\n' | 0) {
                break;
            }
            *to = *from;
            len += 1;
        }
        let end = line.get(..len)?.iter().rposition(|byte| !blank(*byte))?;
        let text = line.get(..=end)?;
        let interpreter = text.iter().position(|byte| !blank(*byte))?;
        let rest = text.get(interpreter..)?;
        let end = rest.iter().position(|byte| blank(*byte));
        let argument = end.and_then(|end| {
            let gap = rest.get(end..)?.iter().position(|byte| !blank(*byte))?;
            Some(interpreter + end + gap)
        });
        let tail = interpreter + end.unwrap_or(rest.len());
        *line.get_mut(tail)? = 0;
        *line.get_mut(len.min(LINE - 1))? = 0;
        trim(line.get_mut(argument.unwrap_or(tail)..len)?);
        Some(Self { line, interpreter, argument })
    }
}

fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Makes blanks at the end the end.
fn trim(word: &mut [u8]) {
    for byte in word.iter_mut().rev().take_while(|byte| blank(**byte)) {
        *byte = 0;
    }
}

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const MAX_SEGMENTS: u16 = 128;
const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const ENTRY: usize = 16;
const MAX_ENTRIES: u64 = 512;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Looks at a program's first bytes, and at its program headers.
pub fn classify(file: &impl Source) -> Kind {
    let mut head = [0; LINE];
    let len = file.read(0, &mut head);
    let head = head.get(..len).unwrap_or_default();
    if head.starts_with(b"#!") {
        return Script::parse(head).map_or(Kind::Other, Kind::Script);
    }
    head.first_chunk().and_then(|header| elf(file, header)).unwrap_or(Kind::Other)
}

fn elf(file: &impl Source, header: &[u8; HEADER]) -> Option<Kind> {
    let kind = short(header, 16)?;
    let ours = header.starts_with(b"\x7fELF")
        && header.get(4..6)? == [ELFCLASS64, ELFDATA2LSB]
        && short(header, 18)? == MACHINE
        && usize::from(short(header, 54)?) == SEGMENT;
    if !ours || !matches!(kind, ET_EXEC | ET_DYN) {
        return None;
    }
    let (mut segments, mut dynamic) = (long(header, 32)?, None);
    for _ in 0..short(header, 56)?.min(MAX_SEGMENTS) {
        let mut segment = [0; SEGMENT];
        if file.read(segments, &mut segment) < SEGMENT {
            break;
        }
        match word(&segment, 0)? {
            PT_INTERP => return Some(Kind::Dynamic),
            PT_DYNAMIC => dynamic = Some((long(&segment, 8)?, long(&segment, 32)?)),
            _ => {}
        }
        segments = segments.wrapping_add(SEGMENT as u64);
    }
    let loader = kind == ET_DYN && !dynamic.is_some_and(|(at, len)| is_pie(file, at, len));
    Some(if loader { Kind::Dynamic } else { Kind::Static })
}

/// Whether an object that names no loader is a program; else it is a loader itself.
fn is_pie(file: &impl Source, at: u64, len: u64) -> bool {
    let entries = (len / ENTRY as u64).min(MAX_ENTRIES);
    let mut entry = [0; ENTRY];
    (0..entries)
        .map(|number| at.wrapping_add(number * ENTRY as u64))
        .map_while(|at| {
            let whole = file.read(at, &mut entry) == ENTRY;
            let (tag, value) = (long(&entry, 0)?, long(&entry, 8)?);
            (whole && tag != 0).then_some((tag, value))
        })
        .any(|(tag, value)| tag == DT_FLAGS_1 && value & DF_1_PIE != 0)
}

fn array<const LEN: usize>(bytes: &[u8], at: usize) -> Option<[u8; LEN]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Source for [u8] {
        fn read(&self, at: u64, into: &mut [u8]) -> usize {
            let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
            let len = rest.len().min(into.len());
            into[..len].copy_from_slice(&rest[..len]);
            len
        }
    }

    impl Source for &[u8] {
        fn read(&self, at: u64, into: &mut [u8]) -> usize {
            (**self).read(at, into)
        }
    }

    fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// An executable whose segments have these types, and whose dynamic section these flags.
    fn executable(kind: u16, segments: &[u32], flags: u64) -> Vec<u8> {
        let mut file = vec![0; 1024];
        put(&mut file, 0, b"\x7fELF\x02\x01\x01");
        put(&mut file, 16, &kind.to_le_bytes());
        put(&mut file, 18, &MACHINE.to_le_bytes());
        put(&mut file, 32, &64u64.to_le_bytes());
        put(&mut file, 54, &(SEGMENT as u16).to_le_bytes());
        put(&mut file, 56, &(segments.len() as u16).to_le_bytes());
        for (number, kind) in segments.iter().enumerate() {
            let at = HEADER + number * SEGMENT;
            put(&mut file, at, &kind.to_le_bytes());
            put(&mut file, at + 8, &768u64.to_le_bytes());
            put(&mut file, at + 32, &48u64.to_le_bytes());
        }
        put(&mut file, 768, &1u64.to_le_bytes());
        put(&mut file, 784, &DT_FLAGS_1.to_le_bytes());
        put(&mut file, 792, &flags.to_le_bytes());
        file
    }

    fn kind(file: &[u8]) -> Kind {
        classify(&file)
    }

    #[test]
    fn programs_with_a_loader_are_told_from_those_without() {
        let of = |kind, segments: &[u32], flags| classify(&&*executable(kind, segments, flags));
        assert_eq!(of(ET_EXEC, &[1, PT_INTERP, PT_DYNAMIC], 0), Kind::Dynamic);
        assert_eq!(of(ET_DYN, &[6, PT_INTERP, PT_DYNAMIC], DF_1_PIE), Kind::Dynamic);
        assert_eq!(of(ET_EXEC, &[1, 1, 4], 0), Kind::Static);
        assert_eq!(of(ET_DYN, &[1, PT_DYNAMIC], DF_1_PIE | 1), Kind::Static, "static-pie");
        assert_eq!(of(ET_DYN, &[1, PT_DYNAMIC], 1), Kind::Dynamic, "a loader");
        assert_eq!(of(1, &[1], 0), Kind::Other, "an object file");
    }

    #[test]
    fn programs_of_this_machine_are_recognised() {
        for (path, expected) in [
            ("/bin/sh", Kind::Dynamic),
            ("/lib64/ld-linux-x86-64.so.2", Kind::Dynamic),
            ("/lib/ld-musl-x86_64.so.1", Kind::Dynamic),
            ("/sbin/ldconfig", Kind::Static),
        ] {
            let Ok(file) = std::fs::read(path) else { continue };
            assert_eq!(kind(&file), expected, "{path}");
        }
    }

    #[test]
    fn other_machines_and_rubbish_are_left_alone() {
        let whole = executable(ET_EXEC, &[1], 0);
        let mut narrow = whole.clone();
        narrow[4] = 1;
        assert_eq!(kind(&narrow), Kind::Other);
        let mut foreign = whole.clone();
        foreign[18] = 40;
        assert_eq!(kind(&foreign), Kind::Other);
        for len in 0..HEADER {
            assert_eq!(kind(&whole[..len]), Kind::Other, "{len} bytes");
        }
        assert_eq!(kind(b"echo hello\n"), Kind::Other);
    }

    proptest::proptest! {
        #[test]
        fn no_header_is_too_odd(at in 0..1024usize, bytes: [u8; 8]) {
            let mut file = executable(ET_DYN, &[1, PT_DYNAMIC], 0);
            let at = at.min(file.len() - 8);
            put(&mut file, at, &bytes);
            kind(&file);
        }

        /// The kernel has the last word; what it hands on is shown by echo(1).
        #[test]
        fn a_line_is_read_as_the_kernel_reads_it(
            before in "[ \t]{0,3}", argument in "[a-z \t=-]{0,12}", end in "[ \t]{0,3}"
        ) {
            let line = format!("#!{before}/bin/echo {argument}{end}\n");
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("script");
            std::fs::write(&path, &line).expect("written");
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .expect("set");
            // Another thread's child may hold it open for writing for a moment.
            let output = loop {
                match std::process::Command::new(&path).output() {
                    Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {}
                    output => break output.expect("it runs"),
                }
            };
            let (interpreter, argument) = script(line.as_bytes()).expect("a script");
            let words = argument.map(|word| word + " ").unwrap_or_default();
            let expected = format!("{words}{}\n", path.display());
            proptest::prop_assert_eq!(interpreter, "/bin/echo");
            // echo(1) takes some words for its own.
            if !words.starts_with('-') {
                proptest::prop_assert_eq!(String::from_utf8(output.stdout).expect("text"), expected);
            }
        }

        #[test]
        fn no_line_is_too_odd(line: Vec<u8>) {
            kind(&[b"#!", &*line].concat());
        }
    }

    fn script(head: &[u8]) -> Option<(String, Option<String>)> {
        let text = |word: &[u8]| {
            let end = word.iter().position(|byte| *byte == 0).expect("an end");
            String::from_utf8(word[..end].to_vec()).expect("text")
        };
        match kind(head) {
            Kind::Script(script) => Some((text(script.interpreter()), script.argument().map(text))),
            _ => None,
        }
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let both = |interpreter: &str, argument: Option<&str>| {
            Some((interpreter.to_owned(), argument.map(str::to_owned)))
        };
        assert_eq!(script(b"#!/bin/sh\nexit\n"), both("/bin/sh", None));
        assert_eq!(script(b"#! \t/bin/sh  \n"), both("/bin/sh", None));
        assert_eq!(script(b"#!/bin/sh"), both("/bin/sh", None));
        assert_eq!(script(b"#!/usr/bin/env  -S a b \n"), both("/usr/bin/env", Some("-S a b")));
        assert_eq!(script(b"#!/bin/sh -e\r\n"), both("/bin/sh", Some("-e\r")), "as the kernel");
        assert_eq!(script(b"#!\n/bin/sh\n"), None);
        assert_eq!(script(b"#!   \n"), None);
        assert_eq!(script(b"#!"), None);
        let long = [b"#!/bin/sh ", &[b'x'; 400][..]].concat();
        assert_eq!(script(&long).expect("a script").1.expect("an argument").len(), 245);
    }
}
