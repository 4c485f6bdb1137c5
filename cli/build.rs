//! Builds the starter, a program without a standard library, to `$OUT_DIR/starter`.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What decides how the outer build is made, and not this one.
const NOT_HANDED_ON: &[&str] = &[
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

/// For a static executable at a fixed address, without a libc.
const FLAGS: &[&str] = &[
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
    "-Cforce-unwind-tables=no",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-Wl,--build-id=none",
    "--cfg=sha2_backend_soft=\"compact\"",
];

fn main() -> Result<(), Box<dyn Error>> {
    for source in ["../starter/Cargo.toml", "../starter/src", "../Cargo.toml", "build.rs"] {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target = variable("TARGET")?;
    let folder = out.join("starter-target");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .args(["build", "--quiet", "--package", "mirrord-starter", "--bin", "starter"])
        .args(["--features", "program", "--profile", "starter", "--manifest-path"])
        .args(["../Cargo.toml", "--target"])
        .arg(&target)
        .arg("--target-dir")
        .arg(&folder)
        // All it needs is needed by this crate as well, and so is already here.
        .arg("--offline");
    for name in NOT_HANDED_ON {
        cargo.env_remove(name);
    }
    // Also where the user's configuration shares one folder: the outer build has it locked.
    cargo.env("CARGO_BUILD_BUILD_DIR", &folder);
    let status = cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")).status()?;
    if !status.success() {
        return Err(format!("the starter cannot be built: {status}").into());
    }
    fs::copy(folder.join(target).join("starter/starter"), out.join("starter"))?;
    Ok(())
}

fn variable(name: &str) -> Result<OsString, Box<dyn Error>> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set").into())
}
