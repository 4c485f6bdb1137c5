//! A pseudo-terminal with a program on it, for what only a terminal does.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use nix::pty::{Winsize, openpty};

use crate::wait;

/// The keyboard and the screen of a program.
pub struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// The program; its controlling terminal is this one.
    pub child: Child,
}

impl Terminal {
    /// Starts `command` on a new terminal of 80 by 24.
    ///
    /// # Errors
    /// If there is no terminal to be had, or the program can't be started.
    pub fn start(command: &Command) -> Result<Self> {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).context("open a pseudo-terminal")?;
        let mut wrapped = Command::new("setsid");
        wrapped.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
        let child = wrapped
            .stdin(Stdio::from(pty.slave.try_clone()?))
            .stdout(Stdio::from(pty.slave.try_clone()?))
            .stderr(Stdio::from(pty.slave))
            .spawn()
            .context("start on a terminal")?;
        let keyboard = File::from(pty.master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut source, sink) = (keyboard.try_clone()?, Arc::clone(&screen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..count]);
            }
        });
        Ok(Self { keyboard, screen, child })
    }

    /// Types.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        self.keyboard.write_all(text.as_bytes()).context("type")
    }

    /// Makes it another size.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let set = Command::new("stty")
            .args(["rows", &rows, "cols", &columns])
            .stdin(Stdio::from(self.keyboard.try_clone()?))
            .status()?;
        anyhow::ensure!(set.success(), "stty: {set}");
        Ok(())
    }

    /// Everything shown so far.
    #[must_use]
    pub fn screen(&self) -> String {
        let bytes = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `text` has been shown.
    ///
    /// # Errors
    /// If it never is; what was shown is in the message.
    pub fn until(&self, text: &str) -> Result<()> {
        wait::until_true(&format!("{text:?} on the screen"), || Ok(self.screen().contains(text)))
            .with_context(|| self.screen())
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Errors
    /// If it does not end.
    pub fn end(&mut self) -> Result<i32> {
        let status = wait::until("the end of the program", || Ok(self.child.try_wait()?))
            .with_context(|| self.screen())?;
        Ok(crate::mirrord::code_of(status))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
