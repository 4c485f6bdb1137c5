//! The user's own docker command, as our child.

use std::collections::HashSet;
use std::env;
use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use mirrord_protocol::layer::{LAYER_FILE, LAYER_VARIABLE};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::process::Command;

use super::app::App;
use super::trampoline;
use crate::docker_run::{Client, DockerRun, env_file};
use crate::engine::clean::SESSION_LABEL;
use crate::engine::containers::layer_volume_name;
use crate::engine::elf::EXECUTABLE;
use crate::engine::entrypoint::PRELOAD;
use crate::engine::image::LAYER_FOLDER;
use crate::env_rules::Delivery;
use crate::failure::Failure;
use crate::session::Plan;
use crate::session::plane;

/// What brings a container into its session.
pub struct Joined {
    /// The sidecar's name or id.
    pub sidecar: String,
    /// The session's id.
    pub session: String,
    /// Flags that bring it the target's variables.
    pub variables: Vec<OsString>,
    /// Flags that bring it the preload library, behind the user's own.
    pub layer: Vec<String>,
}

/// What the user says of variables.
#[derive(Default)]
pub struct UsersVariables {
    names: HashSet<String>,
    /// What they have loaded into the app, if they say anything of it.
    preloaded: Option<String>,
    copies: Vec<OwnedFd>,
}

/// A `docker run` that only waits for its session.
pub struct Prepared {
    program: PathBuf,
    head: Vec<OsString>,
    flags: Vec<OsString>,
    rest: Vec<OsString>,
    users: UsersVariables,
    /// The flags by which the app joins the sidecar.
    joins: Vec<&'static str>,
}

impl UsersVariables {
    /// Reads the flags; a file that can be read only once is replaced by a copy of it.
    pub fn of(run: &mut DockerRun) -> Result<Self, Failure> {
        let mut names: HashSet<String> = run.values("env").map(|word| env_name(&word)).collect();
        let (mut copies, mut preloaded) = (Vec::new(), None);
        for flag in run.flags.iter_mut().filter(|flag| flag.spec.long == "env-file") {
            // A file that cannot be read is docker's to complain of.
            let path = flag.value.clone().unwrap_or_default();
            let Ok(file) = env_file::read(Path::new(&path)) else { continue };
            for (name, value) in file.variables {
                if name == PRELOAD {
                    preloaded = value.or_else(|| env::var(PRELOAD).ok());
                }
                names.insert(name);
            }
            if let Some(content) = file.copy {
                let copy = memory_file(c"env-file", &content)?;
                flag.value = Some(path_of(&copy).into());
                copies.push(copy);
            }
        }
        let preloaded = preloaded_by(run.values("env")).or(preloaded);
        Ok(Self { names, preloaded, copies })
    }
}

impl Prepared {
    /// Finds docker; `flags` are those that it keeps.
    pub fn new(
        run: &DockerRun,
        flags: Vec<OsString>,
        users: UsersVariables,
    ) -> Result<Self, Failure> {
        let program = find(run.client)?;
        let mut head: Vec<OsString> = run.globals.iter().map(|flag| flag.word()).collect();
        head.extend(run.verb.iter().map(OsString::from));
        let mut rest = Vec::new();
        if run.rest.first().is_some_and(|word| word.as_encoded_bytes().starts_with(b"-")) {
            rest.push("--".into());
        }
        rest.extend(run.rest.iter().cloned());
        let given = |flag: &&str| run.values(flag).next().is_some();
        // `--network` of the user's is the sidecar's.
        let kept = |flag: &&&str| **flag == "network" || !given(flag);
        let joins = run.client.joins.iter().filter(kept).copied().collect();
        Ok(Self { program, head, flags, rest, users, joins })
    }

    /// The names of variables that are the user's.
    pub fn users_variables(&self) -> &HashSet<String> {
        &self.users.names
    }

    /// What docker is told.
    pub fn words(&self, joined: &Joined) -> Vec<OsString> {
        let mut words = self.head.clone();
        let sidecar = &joined.sidecar;
        words.extend(self.joins.iter().map(|flag| format!("--{flag}=container:{sidecar}").into()));
        words.extend(joined.variables.iter().cloned());
        words.extend(self.flags.iter().cloned());
        // Behind the user's own: of two labels of one name, docker takes the last.
        words.push(format!("--label={SESSION_LABEL}={}", joined.session).into());
        words.extend(joined.layer.iter().map(OsString::from));
        words.extend(self.rest.iter().cloned());
        words
    }

    /// Flags that bring a container the preload library, before what its user or else its image
    /// preloads.
    pub fn layer(&self, session: &str, by_image: Option<&str>) -> Vec<String> {
        layer_flags(session, self.users.preloaded.as_deref().or(by_image))
    }

    /// Starts docker in the sidecar's network with the target's variables.
    pub fn start(
        mut self,
        plan: &Plan,
        sidecar: &str,
        delivery: &Delivery,
        by_image: Option<String>,
        shares_terminal: bool,
    ) -> Result<App, Failure> {
        let session = plan.session.to_string();
        let mut files = std::mem::take(&mut self.users.copies);
        let mut variables = Vec::new();
        if !delivery.file.is_empty() {
            let file = memory_file(c"target-env", delivery.file.as_bytes())?;
            variables.push(format!("--env-file={}", path_of(&file)).into());
            files.push(file);
        }
        variables.extend(delivery.by_name.iter().map(|(name, _)| format!("--env={name}").into()));
        let layer = match plan.plane.loads_layer(&plan.layer) {
            true => self.layer(&session, by_image.as_deref()),
            false => Vec::new(),
        };
        let joined = Joined { sidecar: sidecar.to_owned(), session, variables, layer };
        let mut command = Command::new(EXECUTABLE);
        command
            .arg(trampoline::NAME)
            .arg(std::process::id().to_string())
            .arg(&self.program)
            .args(self.words(&joined))
            .envs(delivery.by_name.iter().map(|(name, value)| (name, value)));
        App::start(command, shares_terminal, files)
            .map_err(|error| Failure::caused_by("cannot start the engine's client", &error))
    }
}

/// The value of the user's `-e LD_PRELOAD=…`, or of `-e LD_PRELOAD`.
fn preloaded_by(words: impl Iterator<Item = String>) -> Option<String> {
    let value = |word: String| match word.split_once('=') {
        Some((PRELOAD, value)) => Some(value.to_owned()),
        None if word == PRELOAD => env::var(PRELOAD).ok(),
        _ => None,
    };
    words.filter_map(value).last()
}

/// What brings the preload library into a container, behind the user's own flags.
fn layer_flags(session: &str, preloaded: Option<&str>) -> Vec<String> {
    let others = preloaded.filter(|others| !others.is_empty());
    let others = others.map(|others| format!(":{others}")).unwrap_or_default();
    vec![
        format!(
            "--mount=type=volume,source={},target={LAYER_FOLDER},ro",
            layer_volume_name(session)
        ),
        format!("--env={PRELOAD}={LAYER_FOLDER}/{LAYER_FILE}{others}"),
        format!("--env={LAYER_VARIABLE}={}", plane::socket(session)),
    ]
}

/// Whether docker must stay in our process group: to read a terminal it has to be in front of it.
pub fn shares_terminal(host: &str) -> bool {
    io::stdin().is_terminal() || host.starts_with("ssh:")
}

/// Executes a line of docker's that needs no session, in our place.
pub fn replace(client: &Client, words: &[OsString]) -> Failure {
    use std::os::unix::process::CommandExt;
    match find(client) {
        Ok(program) => {
            let error = std::process::Command::new(program).args(words).exec();
            Failure::caused_by(format!("cannot start {}", client.program), &error)
        }
        Err(failure) => failure,
    }
}

/// `NAME=VALUE`, or `NAME` alone.
fn env_name(word: &str) -> String {
    word.split_once('=').map_or(word, |(name, _)| name).to_owned()
}

fn find(client: &Client) -> Result<PathBuf, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let path = env::var_os("PATH").unwrap_or_default();
    let executable = |file: &PathBuf| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let program = client.program;
    let package = if program == "docker" { "the Docker client" } else { program };
    env::split_paths(&path).map(|folder| folder.join(program)).find(executable).ok_or_else(|| {
        Failure::new(format!("there is no {program} command in PATH"))
            .hint(format!("install {package}, or add its folder to PATH"))
    })
}

/// A file that never touches a disk, which children inherit.
pub fn memory_file(name: &CStr, content: &[u8]) -> Result<OwnedFd, Failure> {
    let failed = |error: io::Error| Failure::caused_by("cannot pass variables to docker", &error);
    let descriptor = memfd_create(name, MFdFlags::empty()).map_err(|error| failed(error.into()))?;
    let mut file = File::from(descriptor);
    file.write_all(content).map_err(failed)?;
    Ok(file.into())
}

/// By which name a child finds it.
pub fn path_of(file: &OwnedFd) -> String {
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
    fn the_users_own_preload_libraries_are_kept() {
        let of = |words: &[&str]| preloaded_by(words.iter().map(|word| (*word).to_owned()));
        assert_eq!(
            of(&["A=b", "LD_PRELOAD=/x.so /y.so", "LD_PRELOAD_X=1"]).as_deref(),
            Some("/x.so /y.so")
        );
        assert_eq!(of(&["LD_PRELOAD="]).as_deref(), Some(""));
        assert_eq!(of(&["A=b"]), None);
        let flags = layer_flags("1", Some("/x.so"));
        assert_eq!(flags[1], "--env=LD_PRELOAD=/opt/mirrord/libmirrord_layer.so:/x.so");
        assert_eq!(layer_flags("1", Some(""))[1], layer_flags("1", None)[1]);
    }

    #[test]
    fn a_variable_is_the_users_with_or_without_a_value() {
        assert_eq!((env_name("A=b=c"), env_name("A")), ("A".to_owned(), "A".to_owned()));
    }
}
