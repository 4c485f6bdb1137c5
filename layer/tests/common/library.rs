//! The preload library as the tests have it: built as the executable's is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::layer;
use crate::nested::Nested;

/// Names a library that is there already.
const VARIABLE: &str = "MIRRORD_LAYER_FILE";

/// Where it is.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        if let Some(file) = env::var_os(VARIABLE) {
            return file.into();
        }
        built(env::consts::ARCH)
    })
}

/// The one for aarch64, if this machine can make it.
#[allow(dead_code)]
pub fn of_aarch64() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIBRARY.get_or_init(|| can_make_aarch64().then(|| built("aarch64"))).as_deref()
}

fn can_make_aarch64() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or("rustc".into());
    let target = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", "aarch64-unknown-linux-gnu"])
        .output()
        .is_ok_and(|told| Path::new(String::from_utf8_lossy(&told.stdout).trim()).exists());
    let compiler = Command::new(layer::compiler("aarch64")).arg("--version").output();
    target && compiler.is_ok_and(|told| told.status.success())
}

fn built(architecture: &str) -> PathBuf {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(architecture);
    std::fs::create_dir_all(&out).expect("a folder");
    let cargo = env::var_os("CARGO").expect("run by cargo");
    let target = format!("{architecture}-unknown-linux-gnu").into();
    layer::build(&Nested { out, cargo, target }).expect("a library")
}

/// A library of this machine's libc.
#[allow(dead_code)]
pub fn machines(name: &str) -> PathBuf {
    let folders = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib"];
    let mut places = folders.iter().map(|folder| Path::new(folder).join(name));
    places.find(|place| place.exists()).unwrap_or_else(|| panic!("{name} is nowhere"))
}
