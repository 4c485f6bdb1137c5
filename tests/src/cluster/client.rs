//! A probe in a pod.

use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::Kubectl;
use crate::lab::take_probe;
use crate::remote::Probe;

/// A `probe shell` that `kubectl exec` started in a pod.
pub struct Client {
    probe: Probe,
    child: Child,
}

impl Client {
    /// Starts it in that container of that pod.
    ///
    /// # Errors
    /// If it does not run.
    pub fn enter(kubectl: &Kubectl, pod: &str, container: &str) -> Result<Self> {
        let mut child = kubectl
            .command()
            .args(["exec", "-i", pod, "-c", container, "--", "/probe", "shell"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run kubectl")?;
        let client = Self { probe: take_probe(&mut child)?, child };
        client.probe.ready().with_context(|| format!("a probe in {pod}"))?;
        Ok(client)
    }

    /// What it is asked through.
    #[must_use]
    pub fn probe(&self) -> &Probe {
        &self.probe
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.probe.close();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
