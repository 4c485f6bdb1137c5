//! The user's own docker command, as our child.

use std::collections::HashSet;
use std::env;
use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::signals::Received;
use super::trampoline;
use crate::docker_run::{DockerRun, env_file};
use crate::engine::clean::SESSION_LABEL;
use crate::engine::elf::EXECUTABLE;
use crate::env_rules::Delivery;
use crate::failure::Failure;
use crate::session::SessionId;

/// What the user says of variables.
pub struct UsersVariables {
    names: HashSet<String>,
    copies: Vec<OwnedFd>,
}

/// A `docker run` that only waits for its session.
pub struct Prepared {
    program: PathBuf,
    head: Vec<OsString>,
    tail: Vec<OsString>,
    users: UsersVariables,
}

/// docker, running.
pub struct Docker {
    child: Child,
    shares_terminal: bool,
    // Open until docker has read them.
    _files: Vec<OwnedFd>,
}

impl UsersVariables {
    /// Reads the flags; a file that can be read only once is replaced by a copy of it.
    pub fn of(run: &mut DockerRun) -> Result<Self, Failure> {
        let mut names: HashSet<String> = run.values("env").map(|word| env_name(&word)).collect();
        let mut copies = Vec::new();
        for flag in run.flags.iter_mut().filter(|flag| flag.spec.long == "env-file") {
            // A file that cannot be read is docker's to complain of.
            let path = flag.value.clone().unwrap_or_default();
            let Ok(file) = env_file::read(Path::new(&path)) else { continue };
            names.extend(file.names);
            if let Some(content) = file.copy {
                let copy = memory_file(c"env-file", &content)?;
                flag.value = Some(path_of(&copy).into());
                copies.push(copy);
            }
        }
        Ok(Self { names, copies })
    }
}

impl Prepared {
    /// Finds docker; `flags` are those that it keeps.
    pub fn new(
        run: &DockerRun,
        flags: Vec<OsString>,
        users: UsersVariables,
    ) -> Result<Self, Failure> {
        let program = find_docker()?;
        let mut head: Vec<OsString> = run.globals.iter().map(|flag| flag.word()).collect();
        head.extend(run.verb.iter().map(OsString::from));
        let mut tail = flags;
        if run.rest.first().is_some_and(|word| word.as_encoded_bytes().starts_with(b"-")) {
            tail.push("--".into());
        }
        tail.extend(run.rest.iter().cloned());
        Ok(Self { program, head, tail, users })
    }

    /// The names of variables that are the user's.
    pub fn users_variables(&self) -> &HashSet<String> {
        &self.users.names
    }

    /// Starts docker in the sidecar's network with the target's variables.
    pub fn start(
        self,
        session: &SessionId,
        sidecar: &str,
        delivery: &Delivery,
        shares_terminal: bool,
    ) -> Result<Docker, Failure> {
        let mut files = self.users.copies;
        let mut command = Command::new(EXECUTABLE);
        command
            .arg(trampoline::NAME)
            .arg(std::process::id().to_string())
            .arg(&self.program)
            .args(&self.head)
            .arg(format!("--network=container:{sidecar}"))
            .arg(format!("--label={SESSION_LABEL}={session}"));
        if !delivery.file.is_empty() {
            let file = memory_file(c"target-env", delivery.file.as_bytes())?;
            command.arg(format!("--env-file={}", path_of(&file)));
            files.push(file);
        }
        for (name, value) in &delivery.by_name {
            command.arg(format!("--env={name}")).env(name, value);
        }
        command.args(&self.tail);
        if !shares_terminal {
            command.process_group(0);
        }
        let child =
            command.spawn().map_err(|error| Failure::caused_by("cannot start docker", &error))?;
        Ok(Docker { child, shares_terminal, _files: files })
    }
}

impl Docker {
    /// Waits for its end. Can be cancelled without loss.
    pub async fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }

    /// Hands a signal on, unless docker has had it from the terminal.
    pub fn forward(&self, received: Received) {
        if !(received.from_terminal && self.shares_terminal) {
            self.signal(received.signal);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Whether docker must stay in our process group: to read a terminal it has to be in front of it.
pub fn shares_terminal(host: &str) -> bool {
    io::stdin().is_terminal() || host.starts_with("ssh:")
}

/// Executes a line of docker's that needs no session, in our place.
pub fn replace(words: &[OsString]) -> Failure {
    use std::os::unix::process::CommandExt;
    match find_docker() {
        Ok(program) => {
            let error = std::process::Command::new(program).args(words).exec();
            Failure::caused_by("cannot start docker", &error)
        }
        Err(failure) => failure,
    }
}

/// `NAME=VALUE`, or `NAME` alone.
fn env_name(word: &str) -> String {
    word.split_once('=').map_or(word, |(name, _)| name).to_owned()
}

fn find_docker() -> Result<PathBuf, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let path = env::var_os("PATH").unwrap_or_default();
    let executable = |file: &PathBuf| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&path).map(|folder| folder.join("docker")).find(executable).ok_or_else(|| {
        Failure::new("there is no docker command in PATH")
            .hint("install the Docker client, or add its folder to PATH")
    })
}

/// A file that never touches a disk, which children inherit.
fn memory_file(name: &CStr, content: &[u8]) -> Result<OwnedFd, Failure> {
    let failed = |error: io::Error| Failure::caused_by("cannot pass variables to docker", &error);
    let descriptor = memfd_create(name, MFdFlags::empty()).map_err(|error| failed(error.into()))?;
    let mut file = File::from(descriptor);
    file.write_all(content).map_err(failed)?;
    Ok(file.into())
}

fn path_of(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_file_is_read_from_its_start() {
        let file = memory_file(c"test", b"A=1\n").expect("a file");
        let content = std::fs::read_to_string(path_of(&file)).expect("its content");
        assert_eq!(content, "A=1\n");
    }

    #[test]
    fn a_variable_is_the_users_with_or_without_a_value() {
        assert_eq!((env_name("A=b=c"), env_name("A")), ("A".to_owned(), "A".to_owned()));
    }
}
