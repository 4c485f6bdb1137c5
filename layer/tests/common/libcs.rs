//! The C libraries of this machine: a compiler for each, and what runs its programs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::library::{library, of_aarch64};

/// Names a folder that has another glibc in it, as Debian's packages lay it out (libc6-dev,
/// linux-libc-dev, libgcc-s1); else it is where `tests/old-glibc` lays one out.
const OLD: &str = "MIRRORD_OLD_GLIBC";

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// This machine's.
    Glibc,
    /// An older glibc.
    Old,
    /// musl.
    Musl,
    /// glibc of another machine, by qemu.
    Aarch64,
}

/// Those whose programs can execute this machine's with the layer in them.
#[allow(dead_code)]
pub const NATIVE: &[Libc] = &[Libc::Glibc, Libc::Old, Libc::Musl];
/// All of them.
pub const ALL: &[Libc] = &[Libc::Glibc, Libc::Old, Libc::Musl, Libc::Aarch64];

/// A program.
#[derive(Debug, Clone)]
pub struct Binary {
    /// Its file.
    pub file: PathBuf,
    libc: Libc,
}

impl Binary {
    /// The command that runs it, without the layer.
    pub fn plain(&self) -> Command {
        if self.libc != Libc::Aarch64 {
            return Command::new(&self.file);
        }
        let mut qemu = Command::new("qemu-aarch64-static");
        qemu.args(["-L", "/usr/aarch64-linux-gnu"]).arg(&self.file);
        qemu
    }

    /// The command that runs it with the layer.
    pub fn loaded(&self) -> Command {
        let mut command = self.plain();
        command.env("LD_PRELOAD", self.library());
        command
    }

    /// The library that can be loaded into it.
    pub fn library(&self) -> &'static Path {
        let other = of_aarch64().filter(|_| self.libc == Libc::Aarch64);
        other.unwrap_or_else(library)
    }
}

/// A source, compiled for each of those that are there. What is missing is said, and fails in CI if
/// it can be had there.
pub fn compiled(source: &Path, flags: &[&str], libcs: &[Libc]) -> Vec<Binary> {
    let made = libcs.iter().filter_map(|libc| {
        let binary = libc.compile(source, flags);
        if binary.is_none() {
            assert!(*libc == Libc::Old || env::var_os("CI").is_none(), "{libc:?} is missing");
            eprintln!("SKIPPED: {} with {libc:?}: {}", source.display(), libc.wants());
        }
        binary
    });
    made.collect()
}

impl Libc {
    fn compile(self, source: &Path, flags: &[&str]) -> Option<Binary> {
        if self == Libc::Aarch64 && (of_aarch64().is_none() || !has("qemu-aarch64-static")) {
            return None;
        }
        let mut cc = Command::new(match self {
            Libc::Glibc | Libc::Old => "cc",
            Libc::Musl => "musl-gcc",
            Libc::Aarch64 => "aarch64-linux-gnu-gcc",
        });
        if self == Libc::Old {
            let root = old_glibc()?;
            let folder = format!("{root}/lib/x86_64-linux-gnu");
            let loader = format!("-Wl,--dynamic-linker={folder}/ld-linux-x86-64.so.2");
            let develop = format!("{root}/usr/lib/x86_64-linux-gnu");
            cc.args([format!("--sysroot={root}"), format!("-B{develop}"), format!("-L{develop}")]);
            // Of the libraries' libraries as well.
            cc.args([&format!("-L{folder}"), &loader, "-Wl,--disable-new-dtags"]);
            cc.arg(format!("-Wl,-rpath={folder}"));
        }
        let name = source.file_stem()?.to_str()?;
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{self:?}"));
        let status = cc.args(["-O1", "-w"]).arg(source).arg("-o").arg(&file).args(flags).status();
        status.is_ok_and(|status| status.success()).then_some(Binary { file, libc: self })
    }

    fn wants(self) -> &'static str {
        match self {
            Libc::Glibc => "a C compiler",
            Libc::Old => "tests/old-glibc makes it, or MIRRORD_OLD_GLIBC names it",
            Libc::Musl => "musl-tools",
            Libc::Aarch64 => {
                "gcc-aarch64-linux-gnu, qemu-user-static, rustup target add aarch64-unknown-linux-gnu"
            }
        }
    }
}

fn old_glibc() -> Option<String> {
    // Of target/TRIPLE/tmp.
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().nth(2)?.join("old-glibc");
    let made = made.exists().then(|| made.to_string_lossy().into_owned());
    env::var(OLD).ok().or(made)
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
