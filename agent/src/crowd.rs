//! How much may be copied while the machine has no core to spare: then who copies takes from who
//! serves, so the copy gets a small share, and what goes beyond it is left out and counted.

use std::fs::File;
use std::io::Read;
use std::thread::available_parallelism;

/// The share of the machine's time that is idle; with less it is crowded.
const SPARE: f64 = 0.1;
/// What may be copied for each core from one look to the next, a tenth of a second: some 1 % of
/// the core, with what proxy and app do about it, where they are on the same machine.
const CONNECTIONS: u32 = 4;
const BYTES: usize = 1 << 20;
/// What is shorter costs no less.
const LEAST: usize = 16 << 10;

/// How much may be copied until the next look; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) connections: Option<u32>,
    pub(crate) bytes: usize,
}

impl Allowance {
    pub(crate) const ALL: Self = Self { connections: None, bytes: usize::MAX };

    /// Takes what a piece of so many bytes costs; false if that is not there.
    pub(crate) fn take(&mut self, len: usize) -> bool {
        let left = self.bytes.checked_sub(len.max(LEAST));
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

/// Looks at how busy the machine is.
pub(crate) struct Crowd {
    cores: u32,
    last: Option<Spent>,
}

/// What the machine's cores did since it started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spent {
    idle: u64,
    all: u64,
}

impl Crowd {
    pub(crate) fn new() -> Self {
        let cores = available_parallelism().map_or(1, |cores| cores.get() as u32);
        Self { cores, last: None }
    }

    /// What the time since the last look allows for the time until the next. A machine that can't
    /// be looked at has cores to spare.
    pub(crate) fn look(&mut self) -> Allowance {
        let now = Spent::read();
        let before = std::mem::replace(&mut self.last, now);
        match before.zip(now) {
            Some((before, now)) if now.idle_since(before) < SPARE => Allowance {
                connections: Some(self.cores * CONNECTIONS),
                bytes: self.cores as usize * BYTES,
            },
            _ => Allowance::ALL,
        }
    }
}

impl Spent {
    fn read() -> Option<Self> {
        let mut line = [0; 256];
        let len = File::open("/proc/stat").and_then(|mut file| file.read(&mut line)).ok()?;
        Self::parse(std::str::from_utf8(line.get(..len)?).ok()?)
    }

    /// Of the first line, `cpu user nice system idle iowait irq softirq steal …`: the rest is part
    /// of these (proc_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let numbers = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let numbers = numbers.map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let idle = numbers.get(3)? + numbers.get(4)?;
        Some(Self { idle, all: numbers.iter().sum() })
    }

    /// The share of the time between; all of it if there was none.
    fn idle_since(self, before: Self) -> f64 {
        let idle = self.idle.saturating_sub(before.idle) as f64;
        match self.all.saturating_sub(before.all) {
            0 => 1.0,
            all => idle / all as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_what_nobody_used_or_waited_for_a_disk_in() {
        let before = Spent::parse("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1").unwrap();
        assert_eq!(before, Spent { idle: 80, all: 100 });
        let after = Spent { idle: 85, all: 200 };
        assert!((after.idle_since(before) - 0.05).abs() < 1e-9);
        assert!((before.idle_since(before) - 1.0).abs() < 1e-9);
        assert_eq!(Spent::parse("intr 1 2 3"), None);
    }

    #[test]
    fn small_pieces_cost_as_much_as_ones_of_some_kilobytes() {
        let mut allowance = Allowance { bytes: 3 * LEAST, ..Allowance::ALL };
        assert!(allowance.take(1) && !allowance.take(2 * LEAST + 1) && allowance.take(2 * LEAST));
        assert!(!allowance.take(0));
    }

    #[test]
    fn the_first_look_allows_everything() {
        assert_eq!(Crowd::new().look(), Allowance::ALL);
    }
}
