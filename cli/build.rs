//! Builds what the executable carries and is no part of it: to `$OUT_DIR/starter` a program without
//! a standard library, to `$OUT_DIR/libmirrord_layer.so` the preload library, and to
//! `$OUT_DIR/layer-blob` what static Go programs get instead.

#[path = "build/blob.rs"]
mod blob;
#[path = "build/layer.rs"]
mod layer;
#[path = "build/nested.rs"]
mod nested;
#[path = "build/starter.rs"]
mod starter;

use std::error::Error;

use nested::Nested;

fn main() -> Result<(), Box<dyn Error>> {
    for source in ["../Cargo.toml", "build.rs", "build"] {
        println!("cargo::rerun-if-changed={source}");
    }
    let nested = Nested::of_environment()?;
    starter::build(&nested)?;
    layer::build(&nested)?;
    blob::build(&nested).map(drop)
}
