//! `mirrord exec`: a process of this machine, with the preload library in it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::app::App;
use super::trampoline;
use crate::engine::elf::EXECUTABLE;
use crate::env_rules::EnvRules;
use crate::exit;
use crate::failure::Failure;
use crate::program::{self, Program, ProgramError};
use crate::session::plane::Here;

/// How a sanitizer is told that a library may be loaded before its own.
const ASAN: (&str, &str) = ("ASAN_OPTIONS", "verify_asan_link_order=0");
/// Who executes a program for us with the preload library in it.
const ENV: &[&str] = &["/usr/bin/env", "/bin/env"];

/// A command that only waits for its session.
pub struct Prepared {
    program: PathBuf,
    /// What runs it, if it must be somebody with the preload library.
    through: Option<PathBuf>,
    words: Vec<OsString>,
}

/// Why a command cannot be run, and the exit code that a shell has for that.
pub type Refusal = (Failure, u8);

impl Prepared {
    /// Finds the program, and looks whether the layer can be in it.
    pub fn new(words: &[OsString]) -> Result<Self, Refusal> {
        let Some((name, arguments)) = words.split_first() else {
            let failure = Failure::new("there is no command to run");
            return Err((
                failure.hint("for example mirrord exec -t pod/x -- node app.js"),
                exit::MISUSE,
            ));
        };
        let program = find(name)?;
        let cannot = |failure| (failure, exit::FAILED);
        let through = match program::look_at(&program) {
            Ok(Program::Dynamic) => None,
            Ok(Program::StaticGo) => Some(helper().map_err(cannot)?),
            Err(error) => return Err(cannot(refusal(name, &error))),
        };
        Ok(Self { program, through, words: arguments.to_vec() })
    }

    /// Starts it with the target's variables.
    pub fn start(
        self,
        here: &Here,
        rules: &EnvRules,
        target: Vec<(String, String)>,
        shares_terminal: bool,
    ) -> Result<App, Failure> {
        let mut command = Command::new(EXECUTABLE);
        command.arg(trampoline::NAME).arg(std::process::id().to_string());
        command.args(&self.through).arg(&self.program).args(&self.words);
        command.envs(rules.variables(target));
        command.env("LD_PRELOAD", before(here.library().into(), ":", env::var_os("LD_PRELOAD")));
        command.env(mirrord_protocol::layer::LAYER_VARIABLE, here.address());
        command.env(ASAN.0, before(ASAN.1.into(), ":", env::var_os(ASAN.0)));
        let app = App::start(command, shares_terminal, Vec::new());
        app.map_err(|error| {
            let what = format!("cannot start {}", self.program.display());
            Failure::caused_by(what, &error)
        })
    }
}

/// One list, ours first.
fn before(ours: OsString, separator: &str, theirs: Option<OsString>) -> OsString {
    match theirs.filter(|theirs| !theirs.is_empty()) {
        Some(theirs) => [ours, separator.into(), theirs].into_iter().collect(),
        None => ours,
    }
}

/// As a shell finds it.
fn find(name: &OsStr) -> Result<PathBuf, Refusal> {
    let text = name.to_string_lossy();
    let not_found = || {
        let failure = Failure::new(format!("{text}: there is no such command"));
        (failure.hint("give its path, or add its folder to PATH"), exit::NOT_FOUND)
    };
    if name.is_empty() {
        return Err(not_found());
    }
    let mut found = match text.contains('/') {
        true => vec![PathBuf::from(name)],
        false => {
            let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
            env::split_paths(&path).map(|folder| folder.join(name)).collect()
        }
    };
    found.retain(|file| file.exists());
    if let Some(program) = found.iter().find(|file| is_executable(file)) {
        return Ok(program.clone());
    }
    let Some(file) = found.first() else { return Err(not_found()) };
    let why = if file.is_dir() { "is a folder" } else { "is not executable" };
    Err((Failure::new(format!("{} {why}", file.display())), exit::NOT_EXECUTABLE))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A program that the layer can be in, and that executes another one.
fn helper() -> Result<PathBuf, Failure> {
    let dynamic = |file: &&&str| matches!(program::look_at(Path::new(file)), Ok(Program::Dynamic));
    ENV.iter().find(dynamic).map(PathBuf::from).ok_or_else(|| {
        Failure::new("this machine has no env command that the preload library can be in")
            .because("a static Go program is prepared by the one that executes it")
    })
}

fn refusal(name: &OsStr, error: &ProgramError) -> Failure {
    let sentence = format!("{}: {error}", name.to_string_lossy());
    let failure = Failure::new(sentence);
    match error {
        ProgramError::Static(_) => {
            failure.hint("run it in a container, where the kernel redirects: mirrord docker run …")
        }
        ProgramError::Privileged(_) => {
            failure.hint("run mirrord itself as that user, for example with sudo")
        }
        ProgramError::Unknown(_) | ProgramError::Read(..) | ProgramError::Scripts(_) => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_as_a_shell_finds_it() {
        let code = |name: &str| find(OsStr::new(name)).map_err(|(_, code)| code);
        assert!(code("sh").is_ok());
        assert_eq!(code("/bin/sh"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(code("no-such-command"), Err(127));
        assert_eq!(code(""), Err(127));
        assert_eq!(code("/etc/passwd"), Err(126));
        assert_eq!(code("/etc"), Err(126));
    }

    #[test]
    fn what_is_there_already_is_kept() {
        assert_eq!(before("a".into(), ":", None), "a");
        assert_eq!(before("a".into(), ":", Some("".into())), "a");
        assert_eq!(before("a".into(), ":", Some("b c".into())), "a:b c");
    }
}
