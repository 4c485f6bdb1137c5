//! Compiles every `bpf/*.bpf.c` with clang, to `$OUT_DIR/NAME.o`.

use std::{
    env,
    error::Error,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The program's own suffix.
const SUFFIX: &str = ".bpf.c";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    for entry in fs::read_dir("bpf")? {
        let source = entry?.path();
        let name = source.file_name().and_then(OsStr::to_str);
        if let Some(stem) = name.and_then(|name| name.strip_suffix(SUFFIX)) {
            compile(&source, &out.join(format!("{stem}.o")))?;
        }
    }
    Ok(())
}

/// Compiles one program.
fn compile(source: &Path, object: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", source.display());
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let mut command = Command::new(&clang);
    command
        .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf"])
        .args(["-mcpu=v2", "-fno-stack-protector"])
        .arg(format!("-fdebug-compilation-dir={}", "."))
        .args(multiarch())
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object);
    let status = command
        .status()
        .map_err(|error| format!("cannot run {}: {error} (install clang)", clang.display()))?;
    if !status.success() {
        return Err(format!("{}: {status}", source.display()).into());
    }
    Ok(())
}

/// Debian keeps `asm/types.h` in a folder per architecture, which `-target bpf` does not search.
fn multiarch() -> Option<String> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").ok()?;
    let folder = format!("/usr/include/{arch}-linux-gnu");
    Path::new(&folder).is_dir().then(|| format!("-I{folder}"))
}
