//! `docker mirrord [OPTIONS] run …`: the same program as a plugin of docker's command line.
//!
//! ```text
//!   docker GLOBALS mirrord OPTIONS run WORDS
//!     └─► docker-mirrord GLOBALS mirrord OPTIONS run WORDS
//!           └─► mirrord OPTIONS docker GLOBALS run WORDS
//! ```

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::docker_run::parse;
use crate::engine::endpoint::config_folder;

/// The file that docker looks for in its folders of plugins.
const FILE: &str = "docker-mirrord";
/// The command by which docker asks a plugin who it is.
const METADATA: &str = "docker-cli-plugin-metadata";
/// Names the socket whose end says that docker was told to end.
const SOCKET: &str = "DOCKER_CLI_PLUGIN_SOCKET";
/// The word by which docker calls us.
const WORD: &str = "mirrord";

/// What docker called us for.
pub struct Call {
    /// docker's own flags before our word.
    pub globals: Vec<OsString>,
    /// What stands behind our word.
    pub words: Vec<OsString>,
}

/// Whether docker has started us.
pub fn is_plugin(program: Option<&OsString>) -> bool {
    program.and_then(|program| Path::new(program).file_name()) == Some(OsStr::new(FILE))
}

impl Call {
    /// Splits the words that docker hands on.
    pub fn of(words: &[OsString]) -> Self {
        let behind = parse::behind_globals(words);
        let globals = words[..words.len() - behind.len()].to_vec();
        let words = behind.strip_prefix(&[OsString::from(WORD)]).unwrap_or(behind);
        Self { globals, words: words.to_vec() }
    }

    /// Who we are, if docker asks.
    pub fn metadata(&self) -> Option<String> {
        (self.words.first()? == METADATA).then(|| {
            json!({
                "SchemaVersion": "0.1.0",
                "Vendor": "mirrord",
                "Version": env!("CARGO_PKG_VERSION"),
                "ShortDescription": "Run a container in another one's place",
            })
            .to_string()
        })
    }
}

/// Ends us as SIGTERM does when docker, which keeps signals to itself, is told to end.
pub fn end_with_docker() {
    let Some(name) = env::var_os(SOCKET) else { return };
    let address = match name.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let Ok(mut socket) = address.and_then(|address| UnixStream::connect_addr(&address)) else {
        return;
    };
    std::thread::spawn(move || {
        // A signal is for who waits for it, not for this thread.
        let _ = SigSet::all().thread_block();
        while matches!(socket.read(&mut [0; 64]), Ok(1..)) {}
        let _ = kill(Pid::this(), Signal::SIGTERM);
    });
}

/// The link by which docker finds us, and the program that it should lead to.
pub struct Link {
    /// In this user's folder of plugins.
    pub path: PathBuf,
    program: PathBuf,
}

impl Link {
    /// The one of this user and of the running program.
    pub fn of_user() -> io::Result<Self> {
        let path = config_folder().join("cli-plugins").join(FILE);
        Ok(Self { path, program: env::current_exe()? })
    }

    /// Where it leads now; nothing if it is not there.
    pub fn leads_to(&self) -> Option<PathBuf> {
        fs::symlink_metadata(&self.path).ok()?;
        Some(fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()))
    }

    /// Whether it leads to this program.
    pub fn is_right(&self) -> bool {
        self.leads_to().is_some_and(|leads_to| leads_to == self.program)
    }

    /// Makes it lead to this program. A file that is no link is somebody's own and stays.
    pub fn make(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::symlink_metadata(&self.path) {
            Ok(meta) if meta.is_symlink() => fs::remove_file(&self.path)?,
            Ok(_) => return Err(io::Error::other("a file that is no link is in its place")),
            Err(_) => {}
        }
        std::os::unix::fs::symlink(&self.program, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn dockers_own_flags_are_told_from_ours() {
        let call = Call::of(&words("--context box -D mirrord -t container/a run --rm img"));
        assert_eq!(call.globals, words("--context box -D"));
        assert_eq!(call.words, words("-t container/a run --rm img"));
        assert!(call.metadata().is_none());
    }

    #[test]
    fn docker_is_told_who_we_are() {
        let told = Call::of(&words("docker-cli-plugin-metadata")).metadata().expect("metadata");
        let told: serde_json::Value = serde_json::from_str(&told).expect("json");
        assert_eq!(told["SchemaVersion"], "0.1.0");
    }

    #[test]
    fn a_link_is_made_anew_and_a_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cli-plugins").join(FILE);
        let link = Link { path: path.clone(), program: "/bin/true".into() };
        assert!(link.leads_to().is_none());
        link.make().expect("made");
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("/nowhere", &path).expect("a link");
        assert!(!link.is_right());
        link.make().expect("made");
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "own").expect("written");
        link.make().expect_err("somebody's own");
    }
}
