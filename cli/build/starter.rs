//! The starter: a static executable at a fixed address, without a libc.

use std::error::Error;
use std::fs;

use crate::nested::Nested;

const FOLDER: &str = "starter-target";
const FLAGS: &[&str] = &[
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
    "-Cforce-unwind-tables=no",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-Wl,--build-id=none",
    "--cfg=sha2_backend_soft=\"compact\"",
];

/// Builds it.
pub fn build(nested: &Nested) -> Result<(), Box<dyn Error>> {
    for source in ["../starter/Cargo.toml", "../starter/src"] {
        println!("cargo::rerun-if-changed={source}");
    }
    let words = ["build", "--package", "mirrord-starter", "--bin", "starter"];
    let more = ["--features", "program", "--profile", "starter"];
    let flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
    nested.run(FOLDER, &[&words[..], &more].concat(), &flags)?;
    fs::copy(nested.made(FOLDER, "starter", "starter"), nested.out.join("starter"))?;
    Ok(())
}
