//! A program on a terminal of tmux's: its screen as a person sees it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{skip, wait};

/// How many lines a screen has.
const LINES: &str = "30";
/// Runs the program, then says its exit code below it.
const RUN: &str = r#"trap : INT; "$@"; printf '\nexit code %s\n' $?; exec sleep infinity"#;
const CODE: &str = "exit code ";

/// A terminal with one program on it.
pub struct Screen {
    folder: TempDir,
}

impl Screen {
    /// Starts `command` on a terminal that is so wide; `None` (and a loud line) without tmux.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn open(test: &str, columns: u16, command: &Command) -> Result<Option<Self>> {
        if Command::new("tmux").arg("-V").output().is_err() {
            skip::missing(test, "tmux")?;
            return Ok(None);
        }
        let screen = Self { folder: tempfile::tempdir()? };
        let settings = screen.folder.path().join("settings");
        std::fs::write(&settings, "set -g status off\n")?;
        let mut tmux = screen.tmux();
        tmux.arg("-f").arg(settings);
        tmux.args(["new-session", "-d", "-y", LINES, "-x", &columns.to_string()]);
        tmux.args(["sh", "-c", RUN, "sh", "env"]);
        for (name, value) in command.get_envs() {
            let name = name.to_string_lossy();
            match value {
                Some(value) => tmux.arg(format!("{name}={}", value.to_string_lossy())),
                None => tmux.args(["-u", &name]),
            };
        }
        let started = tmux.arg(command.get_program()).args(command.get_args()).output()?;
        ensure!(started.status.success(), "tmux: {}", String::from_utf8_lossy(&started.stderr));
        Ok(Some(screen))
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.folder.path().join("tmux"));
        tmux
    }

    fn told(&self, words: &[&str]) -> Result<String> {
        let output = self.tmux().args(words).output().context("ask tmux")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Presses a key, as tmux names it.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn press(&self, key: &str) -> Result<()> {
        self.told(&["send-keys", key]).map(drop)
    }

    /// What is on it, without empty lines; with `colours`, their codes as well.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn shows(&self, colours: bool) -> Result<String> {
        let words: &[&str] = match colours {
            true => &["capture-pane", "-p", "-e"],
            false => &["capture-pane", "-p"],
        };
        let text = self.told(words)?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.contains(CODE));
        Ok(lines.map(|line| format!("{}\n", line.trim_end())).collect())
    }

    /// Waits until `text` is on it.
    ///
    /// # Errors
    /// If it never is.
    pub fn until(&self, text: &str) -> Result<String> {
        wait::until(&format!("{text:?} on the screen"), || {
            Ok(Some(self.shows(false)?).filter(|shown| shown.contains(text)))
        })
        .with_context(|| self.shows(false).unwrap_or_default())
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Errors
    /// If it does not end.
    pub fn end(&self) -> Result<String> {
        wait::until("the end of the program", || {
            let text = self.told(&["capture-pane", "-p"])?;
            Ok(text.lines().find_map(|line| line.strip_prefix(CODE)).map(str::to_owned))
        })
        .with_context(|| self.shows(false).unwrap_or_default())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.told(&["kill-server"]);
    }
}
