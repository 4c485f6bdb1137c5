//! The host's view of the processes in containers.

use std::fs;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process of this machine.
#[derive(Debug, Clone)]
pub struct Process {
    /// As this machine numbers it.
    pub pid: i32,
    /// The process that started it, or took it over.
    pub parent: i32,
    /// As its own pid namespace numbers it.
    pub own_pid: i32,
    /// Its words.
    pub args: Vec<String>,
    /// Resident memory, in bytes.
    pub rss: u64,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or("")
        };
        let args = command
            .split(|&byte| byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let kilobytes: u64 =
            field("VmRSS:").split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let number = |name: &str| field(name).split_whitespace().last()?.parse().ok();
        Some(Self {
            pid,
            parent: number("PPid:").unwrap_or(0),
            own_pid: number("NSpid:").unwrap_or(pid),
            args,
            rss: kilobytes * 1024,
        })
    }

    /// Sends it `signal`.
    ///
    /// # Errors
    /// If it is gone, or this user may not.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid), signal).with_context(|| format!("signal {self:?}"))
    }

    /// Whether it still runs, and so holds what it opened: its first thread may be a zombie while
    /// others are still on their way out (proc_pid_stat(5), fields 3 and 20).
    #[must_use]
    pub fn lives(&self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        fields.first() != Some(&"Z") || fields.get(17).is_some_and(|threads| *threads > "1")
    }
}

/// All processes of this machine.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .collect()
}

/// The processes in the container with that full id.
#[must_use]
pub fn of_container(id: &str) -> Vec<Process> {
    all()
        .into_iter()
        .filter(|process| {
            fs::read_to_string(format!("/proc/{}/cgroup", process.pid))
                .is_ok_and(|text| text.contains(id))
        })
        .collect()
}

/// A process and everything that it started.
#[must_use]
pub fn family(root: i32) -> Vec<Process> {
    let all = all();
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(&parent) = pids.get(next) {
        pids.extend(all.iter().filter(|process| process.parent == parent).map(|child| child.pid));
        next += 1;
    }
    all.into_iter().filter(|process| pids.contains(&process.pid)).collect()
}

/// The processes whose program is called `mirrord`, wherever they run.
#[must_use]
pub fn of_mirrord() -> Vec<Process> {
    let is_mirrord = |word: &String| word.rsplit('/').next() == Some("mirrord");
    all().into_iter().filter(|process| process.args.first().is_some_and(is_mirrord)).collect()
}

/// The process that does the container's work: the last one started of `word`, so that an init
/// above it is not it.
///
/// # Errors
/// If there is none.
pub fn worker(id: &str, word: &str) -> Result<Process> {
    of_container(id)
        .into_iter()
        .filter(|process| process.args.iter().any(|arg| arg == word))
        .max_by_key(|process| process.own_pid)
        .ok_or_else(|| anyhow!("no process with {word:?} in container {id}"))
}
