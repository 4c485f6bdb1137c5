//! Everything a session could leave behind, listed before and after.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::{loaded_links, loaded_programs};

use crate::docker::Docker;
use crate::{processes, wait};

/// The kinds of BPF program that a session loads; an engine loads others of its own.
const OUR_KINDS: [&str; 3] = ["SK_LOOKUP", "SCHED_CLS", "SOCKET_FILTER"];

/// Held by a test that compares the whole machine, so that no other one of the file runs.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Containers, volumes, networks, links, rules, BPF programs and processes of this machine.
pub struct Machine {
    docker: Docker,
    there: BTreeSet<String>,
}

impl Machine {
    /// As it is now.
    ///
    /// # Errors
    /// If it can't be listed.
    pub fn now(docker: &Docker) -> Result<Self> {
        Ok(Self { docker: docker.clone(), there: list(docker)? })
    }

    /// Waits until nothing is there that was not there before.
    ///
    /// # Errors
    /// If something stays longer than `patience`; the message names it.
    pub fn as_before(&self, patience: Duration) -> Result<()> {
        let mut new = Vec::new();
        wait::within(patience, "nothing to be left", || {
            new = list(&self.docker)?.difference(&self.there).cloned().collect();
            Ok(new.is_empty().then_some(()))
        })
        .with_context(|| format!("left behind: {new:?}"))
    }
}

fn list(docker: &Docker) -> Result<BTreeSet<String>> {
    let mut there = BTreeSet::new();
    let mut add = |kind: &str, lines: String| {
        there.extend(lines.lines().map(|line| format!("{kind} {line}")));
    };
    add("container", docker.run(&["ps", "-a", "--format", "{{.Names}} {{.Image}}"])?);
    add("volume", docker.run(&["volume", "ls", "-q"])?);
    add("network", docker.run(&["network", "ls", "--format", "{{.Name}}"])?);
    add("link", ip(&["-brief", "link"])?.lines().map(first_word).collect());
    add("rule", ip(&["rule"])?);
    add("program", bpf_programs());
    for process in processes::of_mirrord() {
        there.insert(format!("process {} {}", process.pid, process.args.join(" ")));
    }
    Ok(there)
}

/// A veth's peer index changes nothing about it: the name alone counts.
fn first_word(line: &str) -> String {
    let word = line.split_whitespace().next().unwrap_or("");
    format!("{}\n", word.split('@').next().unwrap_or(""))
}

fn ip(words: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(words).output().context("run ip")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn bpf_programs() -> String {
    let mut lines = String::new();
    for program in loaded_programs().flatten() {
        let kind = format!("{:?}", program.program_type());
        if OUR_KINDS.iter().any(|ours| kind.ends_with(ours)) {
            lines += &format!("{} {}\n", program.id(), program.name_as_str().unwrap_or(""));
        }
    }
    for link in loaded_links().flatten() {
        lines += &format!("link {}\n", link.id());
    }
    lines
}
