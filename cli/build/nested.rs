//! Cargo within cargo: a package of this workspace, built in a way of its own.

use std::env;
use std::error::Error;
use std::ffi::OsString;
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

/// Where it is built, with what, and for what.
pub struct Nested {
    /// The outer build's folder for what it makes.
    pub out: PathBuf,
    /// Where cargo is.
    pub cargo: OsString,
    /// The target's triple.
    pub target: OsString,
}

impl Nested {
    /// As cargo tells build scripts.
    #[allow(dead_code)]
    pub fn of_environment() -> Result<Self, Box<dyn Error>> {
        let variable = |name| env::var_os(name).ok_or_else(|| format!("{name} is not set"));
        let out = PathBuf::from(variable("OUT_DIR")?);
        Ok(Self { out, cargo: variable("CARGO")?, target: variable("TARGET")? })
    }

    /// Runs a command of cargo with these flags for the compiler, and a folder of this name.
    pub fn run(
        &self,
        folder: &str,
        words: &[&str],
        flags: &[String],
    ) -> Result<(), Box<dyn Error>> {
        // All it needs is needed by this crate as well, and so is already here.
        self.run_with(folder, &[words, &["--offline"]].concat(), flags, &[])
    }

    /// The same with variables, and with dependencies that this crate may not have.
    pub fn run_with(
        &self,
        folder: &str,
        words: &[&str],
        flags: &[String],
        variables: &[(&str, String)],
    ) -> Result<(), Box<dyn Error>> {
        let folder = self.out.join(folder);
        let mut cargo = Command::new(&self.cargo);
        cargo
            .args(words)
            .args(["--quiet", "--manifest-path", "../Cargo.toml", "--target"])
            .arg(&self.target)
            .arg("--target-dir")
            .arg(&folder);
        for name in NOT_HANDED_ON {
            cargo.env_remove(name);
        }
        for (name, value) in variables {
            cargo.env(name, value);
        }
        // Also where the user's configuration shares one folder: the outer build has it locked.
        cargo.env("CARGO_BUILD_BUILD_DIR", &folder);
        let status = cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).status()?;
        if !status.success() {
            return Err(format!("cargo {} failed: {status}", words.join(" ")).into());
        }
        Ok(())
    }

    /// What was made in such a folder.
    pub fn made(&self, folder: &str, profile: &str, file: &str) -> PathBuf {
        self.out.join(folder).join(&self.target).join(profile).join(file)
    }
}
