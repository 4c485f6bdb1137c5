//! kubectl's own port-forward: a stranger's way to a pod, and the bench's floor.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::Kubectl;

/// A running `kubectl port-forward` to a port of a pod.
pub struct Forward {
    child: Child,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Forward {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// If it does not.
    pub fn open(kubectl: &Kubectl, pod: &str, port: u16) -> Result<Self> {
        let mut child = kubectl
            .command()
            .args(["port-forward", &format!("pod/{pod}"), &format!(":{port}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run kubectl")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no pipe from kubectl")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        // It says something for each connection, and must not find a closed pipe.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let port = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("127.0.0.1:")?.parse().ok())
            .with_context(|| format!("no port in {line:?}"))?;
        Ok(Self { child, port })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
