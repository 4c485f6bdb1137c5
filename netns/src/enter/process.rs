//! One process, told from others that get its number later.

use std::fs;

use super::{ContainerId, EnterError};

/// A process of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pid: u32,
    started: u64,
}

/// The head of `/proc/PID/stat`.
struct Stat {
    ended: bool,
    /// In ticks since the machine started.
    started: u64,
}

impl Process {
    /// The process with this number, if there is one.
    pub fn with_pid(pid: u32) -> Option<Self> {
        let stat = Stat::of(pid).filter(|stat| !stat.ended)?;
        Some(Self { pid, started: stat.started })
    }

    /// The first process of a container: the init of its pid namespace, or the oldest.
    pub fn find(id: &ContainerId) -> Result<Self, EnterError> {
        let entries = fs::read_dir("/proc").map_err(EnterError::List)?;
        let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let members = processes.filter(|pid| is_member(*pid, id)).filter_map(Self::with_pid);
        members
            .min_by_key(|process| (!process.is_init(), process.started, process.pid))
            .ok_or_else(|| EnterError::NotRunning(id.clone()))
    }

    /// Its number in the pid namespace of `/proc`.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        Self::with_pid(self.pid) == Some(*self)
    }

    /// Whether it is the first one of its pid namespace.
    fn is_init(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/status", self.pid)).is_ok_and(|status| {
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            numbers.and_then(|numbers| numbers.split_whitespace().last()) == Some("1")
        })
    }
}

fn is_member(pid: u32, id: &ContainerId) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroups| id.has(&cgroups))
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// See proc_pid_stat(5). The program's name, in parentheses, may hold anything.
    fn parse(text: &[u8]) -> Option<Self> {
        let name_ends = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(name_ends + 1..)?).ok()?;
        let mut fields = rest.split_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X" | "x");
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self { ended, started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_spaces_do_not_confuse() {
        let numbers = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = |name: &str, state| format!("7 ({name}) {state} {numbers} 4711 23 24");
        let parsed = Stat::parse(stat("a) R 1 (b", "S").as_bytes()).unwrap();
        assert_eq!((parsed.started, parsed.ended), (4711, false));
        assert!(Stat::parse(stat("x", "Z").as_bytes()).unwrap().ended);
        for broken in ["", "7 (x", "7 (x) S 1 2", "7 (x) S"] {
            assert!(Stat::parse(broken.as_bytes()).is_none(), "{broken}");
        }
    }

    #[test]
    fn this_process_is_alive_and_another_of_its_number_is_not_it() {
        let own = Process::with_pid(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Process { started: own.started + 1, ..own }.is_alive());
        assert_eq!(Process::with_pid(u32::MAX), None);
    }
}
