//! Builds what the executable carries and is no part of it: to `$OUT_DIR/starter` a program without
//! a standard library, to `$OUT_DIR/libmirrord_layer.so` the preload library, and to
//! `$OUT_DIR/layer-blob` what static Go programs get instead. The library stands beside the executable
//! as well.

#[path = "build/blob.rs"]
mod blob;
#[path = "build/frida.rs"]
mod frida;
#[path = "build/layer.rs"]
mod layer;
#[path = "build/nested.rs"]
mod nested;
#[path = "build/starter.rs"]
mod starter;

use std::error::Error;
use std::fs;

use nested::Nested;

fn main() -> Result<(), Box<dyn Error>> {
    let layer = ["../layer/Cargo.toml", "../layer/src", "../layer/stubs"];
    let protocol = ["../protocol/src/layer.rs", "../protocol/src/layer"];
    for source in ["../Cargo.toml", "build.rs", "build"].iter().chain(&layer).chain(&protocol) {
        println!("cargo::rerun-if-changed={source}");
    }
    let nested = Nested::of_environment()?;
    starter::build(&nested)?;
    let library = if frida::is_wanted() { frida::build(&nested) } else { layer::build(&nested) }?;
    // Of target/TRIPLE/PROFILE/build/PACKAGE/out.
    if let Some(profile) = nested.out.ancestors().nth(3) {
        fs::copy(&library, profile.join(layer::FILE))?;
    }
    blob::build(&nested).map(drop)
}
