//! A `probe shell` somewhere: commands in, answers and events out.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

/// How long an answer may take; the longest commands move a gigabyte.
const ANSWER: Duration = Duration::from_secs(120);
/// How long everything before the probe may take.
const START: Duration = Duration::from_secs(60);

/// The two ends of a `probe shell`.
pub struct Probe {
    stdin: Mutex<Option<ChildStdin>>,
    next: Mutex<u64>,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    values: Vec<Value>,
    ended: bool,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe {
    /// Takes the pipes of the child that runs it.
    #[must_use]
    pub fn new(stdin: ChildStdin, stdout: ChildStdout) -> Self {
        let heard = Arc::new(Heard::default());
        let listener = Arc::clone(&heard);
        thread::spawn(move || listen(stdout, &listener));
        Self { stdin: Mutex::new(Some(stdin)), next: Mutex::new(0), heard }
    }

    /// Waits until the probe runs.
    ///
    /// # Errors
    /// If it ends first or takes too long.
    pub fn ready(&self) -> Result<()> {
        self.find(START, "the probe", |line| line["event"] == "ready").map(drop)
    }

    /// Asks and waits for the answer, whatever it is.
    ///
    /// # Errors
    /// If the probe is gone or does not answer.
    pub fn ask(&self, command: &str) -> Result<Value> {
        let id = self.send(command)?;
        self.find(ANSWER, &format!("the answer to {command:?}"), |line| line["id"] == id.as_str())
    }

    /// Asks for something that must work.
    ///
    /// # Errors
    /// If it does not: the probe's own words are in the message.
    pub fn must(&self, command: &str) -> Result<Value> {
        let answer = self.ask(command)?;
        if answer["ok"] != true {
            bail!("{command}: {answer}");
        }
        Ok(answer)
    }

    /// Asks and does not wait; the id of the answer to come.
    ///
    /// # Errors
    /// If the probe is gone.
    pub fn send(&self, command: &str) -> Result<String> {
        let id = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            format!("q{next}")
        };
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = stdin.as_mut().ok_or_else(|| anyhow!("the probe's input is closed"))?;
        writeln!(pipe, "{id} {command}").with_context(|| format!("ask {command:?}"))?;
        Ok(id)
    }

    /// The answer to an earlier [`Probe::send`].
    ///
    /// # Errors
    /// If it does not come.
    pub fn answer(&self, id: &str) -> Result<Value> {
        self.find(ANSWER, &format!("the answer {id}"), |line| line["id"] == id)
    }

    /// Waits for an event of that name that `fits`, whenever it came.
    ///
    /// # Errors
    /// If none comes.
    pub fn event(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        self.find(crate::wait::PATIENCE, &format!("the event {name:?}"), |line| {
            line["event"] == name && fits(line)
        })
    }

    /// All events of that name so far.
    #[must_use]
    pub fn events(&self, name: &str) -> Vec<Value> {
        let lines = self.heard.lock();
        lines.values.iter().filter(|line| line["event"] == name).cloned().collect()
    }

    /// Ends the probe's input, which ends the probe.
    pub fn close(&self) {
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn find(&self, patience: Duration, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + patience;
        let mut lines = self.heard.lock();
        let mut seen = 0;
        loop {
            if let Some(found) = lines.values[seen..].iter().find(|line| fits(line)) {
                return Ok(found.clone());
            }
            seen = lines.values.len();
            if lines.ended {
                bail!("the probe ended before {what}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("waited {patience:?} for {what}; heard {:?}", lines.values.last());
            }
            (lines, _) =
                self.heard.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn listen(stdout: impl Read, heard: &Heard) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { break };
        let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
        heard.lock().values.push(value);
        heard.more.notify_all();
    }
    heard.lock().ended = true;
    heard.more.notify_all();
}
