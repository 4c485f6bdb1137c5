//! The preload library with Frida's Gum for an engine, if this build wants it: with a standard
//! library, and for the libc that is here.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::layer::{FILE, FOLDER};
use crate::nested::Nested;

/// Names a folder that has these files.
const VARIABLE: &str = "MIRRORD_FRIDA_DEVKIT";
const FILES: [&str; 2] = ["libfrida-gum.a", "frida-gum.h"];

const FLAGS: &[&str] = &[
    "-Ctarget-feature=-crt-static",
    "-Crelocation-model=pic",
    "-Cforce-unwind-tables=yes",
    "-Clink-arg=-Wl,-z,now",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,-soname,libmirrord_layer.so",
    // What Gum needs.
    "-Clink-arg=-lresolv",
    "-Clink-arg=-lrt",
    "-Clink-arg=-ldl",
    "-Clink-arg=-lm",
];

/// Whether the features of the package that is built ask for it.
pub fn is_wanted() -> bool {
    env::var_os("CARGO_FEATURE_FRIDA").is_some()
}

/// Builds it, and says where it is.
pub fn build(nested: &Nested) -> Result<PathBuf, Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
    let devkit = devkit(env::var_os(VARIABLE))?;
    let feature = match &devkit {
        Some(devkit) => {
            flags.push(format!("-Lnative={}", devkit.display()));
            "frida"
        }
        None => "frida-download",
    };
    let words = ["rustc", "--package", "mirrord-layer", "--lib", "--crate-type", "cdylib"];
    let more = ["--features", feature, "--profile", "layer"];
    let clang = devkit.map(|devkit| format!("-I\"{}\"", devkit.display()));
    let variables: Vec<_> = clang.map(|it| ("BINDGEN_EXTRA_CLANG_ARGS", it)).into_iter().collect();
    nested.run_with(FOLDER, &[&words[..], &more].concat(), &flags, &variables)?;
    let file = nested.out.join(FILE);
    fs::copy(nested.made(FOLDER, "layer", FILE), &file)?;
    Ok(file)
}

/// The folder with the devkit; none if it is to be downloaded.
pub fn devkit(folder: Option<OsString>) -> Result<Option<PathBuf>, String> {
    let Some(folder) = folder.filter(|folder| !folder.is_empty()) else {
        if env::var_os("CARGO_FEATURE_FRIDA_DOWNLOAD").is_some() {
            return Ok(None);
        }
        return Err(format!(
            "the feature `frida` needs the devkit of frida-gum: let {VARIABLE} name a folder with \
             {}, or build with the feature `frida-download`, which downloads it",
            FILES.join(" and ")
        ));
    };
    let folder = Path::new(&folder);
    match FILES.iter().find(|file| !folder.join(file).is_file()) {
        Some(file) => Err(format!("{VARIABLE} names {}, which has no {file}", folder.display())),
        None => fs::canonicalize(folder).map(Some).map_err(|error| {
            format!("{VARIABLE} names {}, which cannot be read: {error}", folder.display())
        }),
    }
}
