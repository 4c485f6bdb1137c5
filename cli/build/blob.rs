//! The layer for static Go programs, which no library can be loaded into: the same code without a
//! libc, to be put into the program. See `proxy/src/layer/rewrite.rs`.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use crate::nested::Nested;

const FOLDER: &str = "blob-target";
const FILE: &str = "libmirrord_layer.so";

const FLAGS: &[&str] = &[
    "-Ctarget-feature=-crt-static",
    "-Crelocation-model=pic",
    "-Crelro-level=off",
    "-Cforce-unwind-tables=no",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    // Nothing is undefined: who maps it looks nothing up.
    "-Clink-arg=-Wl,-z,defs",
    "-Clink-arg=-Wl,-Bsymbolic",
    "-Clink-arg=-Wl,-e,mirrord_go_entry",
    "-Clink-arg=-Wl,-z,norelro",
    "-Clink-arg=-Wl,-z,noseparate-code",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,--strip-all",
];

/// Builds it, and says where it is; an empty file for a machine on which there is none.
pub fn build(nested: &Nested) -> Result<PathBuf, Box<dyn Error>> {
    let file = nested.out.join("layer-blob");
    if !nested.target.to_string_lossy().starts_with("x86_64-") {
        fs::write(&file, [])?;
        return Ok(file);
    }
    let flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
    let words = ["rustc", "--package", "mirrord-layer", "--lib", "--crate-type", "cdylib"];
    let more = ["--features", "blob", "--profile", "layer"];
    nested.run(FOLDER, &[&words[..], &more].concat(), &flags)?;
    fs::copy(nested.made(FOLDER, "layer", FILE), &file)?;
    Ok(file)
}
