//! The preload library: no standard library, and of libc only names that every libc has, without
//! versions. For that it is linked against stubs, which have the names of the real ones.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::nested::Nested;

/// Where it is built, and what it is called.
pub const FOLDER: &str = "layer-target";
pub const FILE: &str = "libmirrord_layer.so";
/// musl's loader takes both names for itself.
const STUBS: &[(&str, &str)] = &[("libc", "libc.so.6"), ("libdl", "libdl.so.2")];

const FLAGS: &[&str] = &[
    "-Ctarget-feature=-crt-static",
    "-Crelocation-model=pic",
    // A thread that is cancelled in a hooked call is unwound through the hook.
    "-Cforce-unwind-tables=yes",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    // Nothing but what the stubs have, and nothing that panics, see layer/src/panic.rs.
    "-Clink-arg=-Wl,-z,defs",
    "-Clink-arg=-Wl,-z,now",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,--hash-style=gnu",
    "-Clink-arg=-Wl,-soname,libmirrord_layer.so",
    "-Clink-arg=-Wl,--no-as-needed",
    "-Clink-arg=-lc",
    "-Clink-arg=-ldl",
];

/// Builds it, and says where it is.
pub fn build(nested: &Nested) -> Result<PathBuf, Box<dyn Error>> {
    let stubs = nested.out.join("layer-stubs");
    fs::create_dir_all(&stubs)?;
    let architecture = nested.target.to_str().and_then(|triple| triple.split('-').next());
    let cc = compiler(architecture.unwrap_or_default());
    for (name, soname) in STUBS {
        stub(cc, &stubs, name, soname)?;
    }
    let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
    flags.push(format!("-Clink-arg=-L{}", stubs.display()));
    flags.push(format!("-Clinker={cc}"));
    let words = ["rustc", "--package", "mirrord-layer", "--lib", "--crate-type", "cdylib"];
    let more = ["--features", "preload", "--profile", "layer"];
    nested.run(FOLDER, &[&words[..], &more].concat(), &flags)?;
    let file = nested.out.join(FILE);
    fs::copy(nested.made(FOLDER, "layer", FILE), &file)?;
    Ok(file)
}

/// What makes libraries for an architecture.
pub fn compiler(architecture: &str) -> &'static str {
    match architecture {
        "aarch64" if env::consts::ARCH != "aarch64" => "aarch64-linux-gnu-gcc",
        _ => "cc",
    }
}

/// Makes a library that has names and nothing behind them.
fn stub(cc: &str, folder: &Path, name: &str, soname: &str) -> Result<(), Box<dyn Error>> {
    let status = Command::new(cc)
        .args(["-shared", "-nostdlib", &format!("-Wl,-soname,{soname}"), "-o"])
        .arg(folder.join(format!("{name}.so")))
        .arg(format!("../layer/stubs/{name}.s"))
        .status()?;
    if !status.success() {
        return Err(format!("{cc} cannot make {soname}: {status}").into());
    }
    Ok(())
}
