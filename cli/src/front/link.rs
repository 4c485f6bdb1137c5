//! The keeper, as our child.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::engine::elf::EXECUTABLE;
use crate::session::events::Event;
use crate::session::{Plan, plan};

/// How long a keeper may take to end once it has nothing more to say.
const ENDING: Duration = Duration::from_secs(2);

/// Our end of the pipes to the keeper.
pub struct Keeper {
    child: Child,
    input: Option<ChildStdin>,
    events: Lines<BufReader<ChildStdout>>,
}

impl Keeper {
    /// Starts one and tells it the plan.
    pub async fn start(plan: &Plan) -> io::Result<Self> {
        let mut child = Command::new(EXECUTABLE)
            .arg0("mirrord")
            .arg("session")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let output = child.stdout.take().ok_or_else(missing)?;
        let input = child.stdin.take();
        let mut keeper = Self { child, input, events: BufReader::new(output).lines() };
        keeper.send(plan).await?;
        Ok(keeper)
    }

    async fn send(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        match &mut self.input {
            Some(input) => input.write_all(&line).await,
            None => Ok(()),
        }
    }

    /// Tells it how the app has ended. A keeper that is gone will show as the end of its events.
    pub async fn end(&mut self, command: plan::Command) {
        let _ = self.send(&command).await;
    }

    /// Leaves it without a word, as if we had died: it then stops the app as well.
    pub fn abandon(&mut self) {
        self.input = None;
    }

    /// What it says next; `None` once it is gone. Can be cancelled without loss.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.events.next_line().await {
                Ok(Some(line)) => {
                    if let Ok(event) = serde_json::from_str(&line) {
                        return Some(event);
                    }
                }
                Ok(None) | Err(_) => {
                    let _ = tokio::time::timeout(ENDING, self.child.wait()).await;
                    return None;
                }
            }
        }
    }
}
