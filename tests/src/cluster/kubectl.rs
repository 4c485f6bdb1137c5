//! The `kubectl` command, as a test uses it.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// kubectl with a kubeconfig, and a namespace if one was chosen.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    config: OsString,
    namespace: Option<String>,
}

impl Kubectl {
    /// With `KUBECONFIG`; `None` without it, or where there is no kubectl.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        let config = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty())?;
        Some(Self { program: program()?, config, namespace: None })
    }

    /// The same in that namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// The kubeconfig.
    #[must_use]
    pub fn config(&self) -> &OsString {
        &self.config
    }

    /// `kubectl`, nothing on its standard input.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.config).stdin(Stdio::null());
        if let Some(namespace) = &self.namespace {
            command.args(["-n", namespace]);
        }
        command
    }

    /// Runs `kubectl WORDS` to its end; its trimmed standard output.
    ///
    /// # Errors
    /// If it fails; its standard error is in the message.
    pub fn run<W: AsRef<str>>(&self, words: &[W]) -> Result<String> {
        let output = self.command().args(words.iter().map(AsRef::as_ref)).output();
        said(words, output.context("run kubectl")?)
    }

    /// The same with `input` on its standard input.
    ///
    /// # Errors
    /// If it fails.
    pub fn feed<W: AsRef<str>>(&self, words: &[W], input: &str) -> Result<String> {
        let mut command = self.command();
        command.args(words.iter().map(AsRef::as_ref));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("run kubectl")?;
        let mut stdin = child.stdin.take().context("no pipe to kubectl")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        said(words, child.wait_with_output()?)
    }

    /// What `kubectl WORDS -o json` prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn json<W: AsRef<str>>(&self, words: &[W]) -> Result<Value> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).chain(["-o", "json"]).collect();
        serde_json::from_str(&self.run(&words)?).context("kubectl's JSON")
    }

    /// One field of an object, by its JSONPath without the braces.
    ///
    /// # Errors
    /// If there is no such object.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        self.run(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// Applies these objects.
    ///
    /// # Errors
    /// If the cluster refuses one.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.feed(&["apply", "-f", "-"], &list.to_string()).map(drop)
    }
}

fn program() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    folders.extend(cache.map(|cache| cache.join("mirrord-cluster/bin")));
    folders.into_iter().map(|folder| folder.join("kubectl")).find(|path| path.is_file())
}

fn said<W: AsRef<str>>(words: &[W], output: Output) -> Result<String> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    ensure!(
        output.status.success(),
        "kubectl {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
