//! The node's view of a pod, where the node is a container of this machine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::Pod;
use crate::docker::Docker;
use crate::{processes, wait};

/// A node that is a container of the engine.
pub struct Node {
    docker: Docker,
    name: String,
}

impl Node {
    /// The node of `pod`; `None` where it is no container here.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let docker = Docker::local();
        let here = docker.inspect(&pod.node, "{{.State.Running}}").is_ok_and(|is| is == "true");
        here.then(|| Self { docker, name: pod.node.clone() })
    }

    /// Runs a shell's words on it.
    ///
    /// # Errors
    /// If they fail.
    pub fn shell(&self, script: &str) -> Result<String> {
        self.docker.run(&["exec", &self.name, "sh", "-c", script])
    }

    /// Has a new kube-proxy write all rules of Services: now and then the one that runs loses some,
    /// after an API server went away or Services were changed.
    ///
    /// # Errors
    /// If the node can't be reached.
    pub fn renew_services(&self) -> Result<()> {
        eprintln!("rules of Services were lost: kube-proxy is started anew");
        let script =
            "kill -9 $(pidof kube-proxy); nft delete table ip kube-proxy 2>/dev/null; true";
        self.shell(script).map(drop)
    }

    /// Runs a shell's words in the network of a pod of it.
    ///
    /// # Errors
    /// If they fail.
    pub fn within(&self, pod: &Pod, script: &str) -> Result<String> {
        let find = format!("grep -l {} /proc/[0-9]*/cgroup | head -n 1", pod.container_id);
        let found = self.shell(&find)?;
        let pid = found.split('/').nth(2).ok_or_else(|| anyhow!("no process of {}", pod.name))?;
        self.docker.run(&["exec", &self.name, "nsenter", "-t", pid, "-n", "sh", "-c", script])
    }
}

/// The rules, routes, addresses and attached programs of a pod's network.
pub struct Network {
    pid: i32,
    there: BTreeSet<String>,
}

impl Network {
    /// Of `pod`, as it is now.
    ///
    /// # Errors
    /// If its processes are not on this machine.
    pub fn of(pod: &Pod) -> Result<Self> {
        let processes = processes::of_container(&pod.container_id);
        let pid = processes.first().context("no process of the pod on this machine")?.pid;
        Ok(Self { pid, there: list(pid)? })
    }

    /// Waits until it is as it was.
    ///
    /// # Errors
    /// If a difference stays longer than `patience`; the message names it.
    pub fn as_before(&self, patience: Duration) -> Result<()> {
        let mut changed = Vec::new();
        wait::within(patience, "the pod's network to be as before", || {
            changed = list(self.pid)?.symmetric_difference(&self.there).cloned().collect();
            Ok(changed.is_empty().then_some(()))
        })
        .with_context(|| format!("changed: {changed:?}"))
    }

    /// How many programs are attached to it.
    ///
    /// # Errors
    /// If the pod is gone.
    pub fn programs(&self) -> Result<usize> {
        Ok(list(self.pid)?.iter().filter(|line| line.starts_with("program")).count())
    }
}

fn list(pid: i32) -> Result<BTreeSet<String>> {
    let mut there = BTreeSet::new();
    for words in [&["rule"][..], &["route", "show", "table", "all"], &["-brief", "address"]] {
        let output = Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-n", "ip"])
            .args(words)
            .output()
            .context("run nsenter")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        there.extend(text.lines().map(|line| format!("{} {line}", words[0])));
    }
    let inode = fs::metadata(format!("/proc/{pid}/ns/net"))?.ino();
    there.extend(links(inode).into_iter().map(|id| format!("program of link {id}")));
    Ok(there)
}

/// The BPF links to a network namespace, which only a process that holds them keeps.
fn links(inode: u64) -> BTreeSet<String> {
    let wanted = format!("netns_ino:\t{inode}");
    let Ok(processes) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    processes
        .filter_map(|entry| fs::read_dir(entry.ok()?.path().join("fdinfo")).ok())
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .filter(|text| text.lines().any(|line| line == wanted))
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("link_id:\t")).map(str::to_owned)
        })
        .collect()
}
