//! The preload library as the tests have it: built as the executable's is.

use std::env;
use std::path::{Path, PathBuf};
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
        let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let cargo = env::var_os("CARGO").expect("run by cargo");
        let target = format!("{}-unknown-linux-gnu", env::consts::ARCH).into();
        layer::build(&Nested { out, cargo, target }).expect("a library")
    })
}

/// A library of this machine's libc.
#[allow(dead_code)]
pub fn machines(name: &str) -> PathBuf {
    let folders = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib"];
    let mut places = folders.iter().map(|folder| Path::new(folder).join(name));
    places.find(|place| place.exists()).unwrap_or_else(|| panic!("{name} is nowhere"))
}
