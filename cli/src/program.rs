//! Whether the preload library can be in a program: elf(5), execve(2), and "secure-execution mode"
//! of ld.so(8).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use rustix::fs::fgetxattr;

/// How often a script may be read by another one (fs/exec.c).
const SCRIPTS: usize = 4;
/// As much of a script as the kernel looks at (BINPRM_BUF_SIZE).
const LINE: u64 = 256;
/// What Go writes into each program (`debug/buildinfo`), early in its data.
const GO: &[u8] = b"\xff Go buildinf:";
/// The attribute of a file that gives capabilities (capabilities(7)); root has them anyway.
const CAPABILITIES: &str = "security.capability";
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const ET_DYN: u16 = 3;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;

/// A program that the layer can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A loader brings it its libraries.
    Dynamic,
    /// The layer is put into it when it is executed.
    StaticGo,
}

/// Why the layer cannot be in a program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Nothing is ever loaded into it.
    #[error("{} is statically linked: no library can be loaded into it", .0.display())]
    Static(PathBuf),
    /// Setuid, or setgid, or with capabilities.
    #[error("{} runs with rights of its own: no library is loaded into it", .0.display())]
    Privileged(PathBuf),
    /// Of another machine, or no program at all.
    #[error("{} is not a program of this machine", .0.display())]
    Unknown(PathBuf),
    /// Scripts that read scripts.
    #[error("{} is a script that is read by too many others", .0.display())]
    Scripts(PathBuf),
    /// It cannot be looked at.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, io::Error),
}

/// What a program is; a script is what reads it.
pub fn look_at(path: &Path) -> Result<Program, ProgramError> {
    let mut path = path.to_owned();
    for _ in 0..=SCRIPTS {
        let failed = |error| ProgramError::Read(path.clone(), error);
        let file = File::open(&path).map_err(failed)?;
        let mut head = Vec::new();
        (&file).take(LINE).read_to_end(&mut head).map_err(failed)?;
        if head.starts_with(b"#!") {
            path = named(&head).ok_or(ProgramError::Unknown(path))?;
            continue;
        }
        if !head.starts_with(b"\x7fELF") {
            // A shell runs it, as execvp(3) says.
            return Ok(Program::Dynamic);
        }
        if gives_rights(&file).map_err(failed)? {
            return Err(ProgramError::Privileged(path));
        }
        return of_elf(&file, &path, &head);
    }
    Err(ProgramError::Scripts(path))
}

/// Who reads a script, as its first line names it.
pub fn interpreter(head: &[u8]) -> Option<PathBuf> {
    words(head)?.next().map(PathBuf::from)
}

/// Who reads a script; for `env NAME` that is NAME, as this machine finds it.
fn named(head: &[u8]) -> Option<PathBuf> {
    let mut words = words(head)?;
    let path = PathBuf::from(words.next()?);
    if path.file_name()? != "env" {
        return Some(path);
    }
    let plain = |word: &&OsStr| {
        let bytes = word.as_bytes();
        !bytes.starts_with(b"-") && !bytes.contains(&b'=')
    };
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = words.find(plain).and_then(|name| {
        std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| file.is_file())
    });
    Some(found.unwrap_or(path))
}

fn words(head: &[u8]) -> Option<impl Iterator<Item = &OsStr>> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let words = line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | 0));
    Some(words.filter(|word| !word.is_empty()).map(OsStr::from_bytes))
}

/// Whether a file that begins so is a program that names no loader (`PT_INTERP`).
pub fn needs_no_loader(head: &[u8]) -> bool {
    let segments = || {
        let (table, entries) = (long(head, 32)?, short(head, 56)?);
        let at = |entry: u16| usize::try_from(table).ok()?.checked_add(usize::from(entry) * 56);
        let kinds = (0..entries).map_while(|entry| head.get(at(entry)?..)?.first_chunk());
        Some(kinds.map(|kind| u32::from_le_bytes(*kind)).any(|kind| kind == PT_INTERP))
    };
    head.starts_with(b"\x7fELF\x02\x01") && segments() == Some(false)
}

/// Whether executing it changes who we are, so that the loader ignores LD_PRELOAD.
fn gives_rights(file: &File) -> io::Result<bool> {
    let meta = file.metadata()?;
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let setuid = meta.mode() & mode::SETUID != 0 && meta.uid() != user;
    let setgid = meta.mode() & mode::SETGID == mode::SETGID && meta.gid() != group;
    let capable = user != 0 && fgetxattr(file, CAPABILITIES, &mut [0u8; 0]).is_ok();
    Ok(setuid || setgid || capable)
}

mod mode {
    pub const SETUID: u32 = 0o4000;
    /// Without the group's right to execute it stands for something else (stat(2)).
    pub const SETGID: u32 = 0o2010;
}

fn of_elf(file: &File, path: &Path, head: &[u8]) -> Result<Program, ProgramError> {
    let unknown = || ProgramError::Unknown(path.to_owned());
    let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let is_ours = head.get(4..6) == Some(&[2, 1]) && short(head, 18) == Some(machine);
    let table = long(head, 32).filter(|_| is_ours).ok_or_else(unknown)?;
    let (mut dynamic, entries) = (None, short(head, 56).unwrap_or(0));
    for entry in 0..u64::from(entries) {
        let mut segment = [0; 56];
        let at = table.checked_add(entry * 56).ok_or_else(unknown)?;
        file.read_exact_at(&mut segment, at).map_err(|_| unknown())?;
        match word(&segment) {
            PT_INTERP => return Ok(Program::Dynamic),
            PT_DYNAMIC => dynamic = long(&segment, 8).zip(long(&segment, 32)),
            _ => {}
        }
    }
    let is_loader = short(head, 16) == Some(ET_DYN)
        && !dynamic.is_some_and(|(at, length)| is_pie(file, at, length));
    match is_loader {
        true => Ok(Program::Dynamic),
        false if is_go(file) => Ok(Program::StaticGo),
        false => Err(ProgramError::Static(path.to_owned())),
    }
}

/// Whether an object that names no loader is a program; else it is a loader itself.
fn is_pie(file: &File, at: u64, length: u64) -> bool {
    let mut table = vec![0; usize::try_from(length.min(1 << 16)).unwrap_or(0)];
    let whole = file.read_exact_at(&mut table, at).is_ok();
    let flags = |entry: &[u8]| {
        long(entry, 0) == Some(DT_FLAGS_1) && long(entry, 8).is_some_and(|it| it & DF_1_PIE != 0)
    };
    whole && table.chunks(16).any(flags)
}

fn is_go(mut file: &File) -> bool {
    use std::io::Seek;
    const CHUNK: usize = 1 << 20;
    let mut buffer = Vec::with_capacity(CHUNK + GO.len());
    if file.rewind().is_err() {
        return false;
    }
    while let Ok(read @ 1..) = file.take(CHUNK as u64).read_to_end(&mut buffer) {
        if buffer.windows(GO.len()).any(|window| window == GO) {
            return true;
        }
        // A mark may lie across two chunks.
        buffer.drain(..buffer.len().saturating_sub(GO.len()));
        if read < CHUNK {
            break;
        }
    }
    false
}

fn word(bytes: &[u8; 56]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_this_machine_are_told_apart() {
        let of = |path: &str| look_at(Path::new(path));
        assert!(matches!(of("/bin/sh"), Ok(Program::Dynamic)));
        if Path::new("/sbin/ldconfig").exists() {
            let refused = of("/sbin/ldconfig");
            assert!(matches!(refused, Err(ProgramError::Static(_)) | Ok(Program::Dynamic)));
        }
        assert!(matches!(of("/nowhere"), Err(ProgramError::Read(..))));
    }

    #[test]
    fn a_script_is_what_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("script");
        for first in ["#!/bin/sh", "#! /usr/bin/env sh", "#!/usr/bin/env -S A=b sh -e", "echo"] {
            std::fs::write(&path, first).expect("written");
            assert!(matches!(look_at(&path), Ok(Program::Dynamic)), "{first}");
        }
        std::fs::write(&path, format!("#!{}\n", path.display())).expect("written");
        assert!(matches!(look_at(&path), Err(ProgramError::Scripts(_))));
        std::fs::write(&path, b"\x7fELF\x01\x01").expect("written");
        assert!(matches!(look_at(&path), Err(ProgramError::Unknown(_))));
    }
}
