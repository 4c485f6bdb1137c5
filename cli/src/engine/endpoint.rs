//! Which engine a docker line talks to, decided as docker decides it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::podman::{self, Podman};
use crate::docker_run::DockerRun;
use crate::docker_run::client::DOCKER;
use crate::docker_run::parse::{self, Line};
use crate::failure::{Failure, nearest};

const DEFAULT: &str = "docker's default";
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// docker's port, with TLS and without.
const PORT: u16 = 2375;

/// Where an engine listens, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `unix:///path`, `tcp://host:port` or `ssh://user@host:port`.
    pub host: String,
    /// Where that was found, for messages.
    pub source: String,
    /// How a TCP connection is encrypted, if it is.
    pub tls: Option<Tls>,
    /// What is known of it if it is podman.
    pub podman: Option<Podman>,
}

impl Endpoint {
    /// Whether nobody has asked for this one.
    pub fn is_default(&self) -> bool {
        self.source == DEFAULT
    }

    fn docker(host: String, source: String, tls: Option<Tls>) -> Self {
        Self { host, source, tls, podman: None }
    }
}

/// Files of certificates, and whether the engine's is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Who may vouch for the engine; the system's own list if there is none.
    pub ca: Option<PathBuf>,
    /// Who we are.
    pub cert: Option<PathBuf>,
    /// The key of that.
    pub key: Option<PathBuf>,
    /// Whether somebody must vouch for the engine.
    pub verify: bool,
}

/// The engine of a line.
pub fn of(run: &DockerRun) -> Result<Endpoint, EndpointError> {
    match run.client.program {
        "podman" => podman::endpoint(run),
        _ => Sources::of(run).resolve(),
    }
}

/// Why the engine's address could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// `--context` beside `-H`.
    #[error("conflicting options: either specify --host or --context, not both")]
    Conflict,
    /// A context that docker does not have.
    #[error("context {name:?} does not exist")]
    UnknownContext {
        /// Its name.
        name: String,
        /// Those that do.
        known: Vec<String>,
    },
    /// A file of docker's that is not what it should be.
    #[error("cannot read {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A scheme that we cannot speak.
    #[error("cannot talk to the engine at {0}")]
    Scheme(String),
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        let hint = match &error {
            EndpointError::Conflict => "leave one of the two out".to_owned(),
            EndpointError::UnknownContext { name, known } => {
                match nearest(name, known.iter().map(String::as_str)).first() {
                    Some(near) => format!("did you mean {near}? see 'docker context ls'"),
                    None => "see 'docker context ls'".to_owned(),
                }
            }
            EndpointError::File { .. } => "see 'docker context ls'".to_owned(),
            // Docker's is spoken.
            EndpointError::Scheme(host) if host.starts_with("ssh:") => {
                "podman is not reached by ssh yet: use a unix: or tcp: address, with --url, \
                 --connection or CONTAINER_HOST"
                    .to_owned()
            }
            EndpointError::Scheme(_) => {
                "use a unix://, tcp:// or ssh:// address, with -H, --context or DOCKER_HOST"
                    .to_owned()
            }
        };
        let failure = Failure::new(error.to_string()).hint(hint);
        match std::error::Error::source(&error) {
            Some(cause) => failure.because(cause.to_string()),
            None => failure,
        }
    }
}

/// What docker looks at to find its engine.
#[derive(Debug, Default)]
pub struct Sources {
    /// `-H`.
    pub host: Option<String>,
    /// `--context`.
    pub context: Option<String>,
    /// `--config`, else `DOCKER_CONFIG`, else `~/.docker`.
    pub config: PathBuf,
    /// `DOCKER_HOST`.
    pub env_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub env_context: Option<String>,
    /// `--tls…`, `DOCKER_TLS…` and `DOCKER_CERT_PATH`.
    pub tls: Option<Tls>,
}

impl Sources {
    /// Those of this process's environment alone.
    pub fn of_environment() -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            host: None,
            context: None,
            config: config_folder(),
            env_host: set("DOCKER_HOST"),
            env_context: set("DOCKER_CONTEXT"),
            tls: tls(None),
        }
    }

    /// Those of a line and of this process's environment.
    pub fn of(run: &DockerRun) -> Self {
        let own = Self::of_environment();
        Self {
            host: run.global("host"),
            context: run.global("context"),
            config: run.global("config").map_or(own.config, PathBuf::from),
            tls: tls(Some(run)),
            ..own
        }
    }

    /// Those of docker's own flags and of this process's environment.
    pub fn of_flags(flags: &[OsString]) -> Self {
        let words: Vec<OsString> =
            flags.iter().cloned().chain(["run".into(), "x".into()]).collect();
        match parse::line(&DOCKER, &words) {
            Ok(Line::Run(run)) => Self::of(&run),
            _ => Self::of_environment(),
        }
    }

    /// The engine that they name.
    pub fn resolve(&self) -> Result<Endpoint, EndpointError> {
        let Endpoint { host, source, tls, .. } = self.pick()?;
        match host.split_once("://") {
            Some(("tcp", place)) => {
                let host = format!("tcp://{}", with_port(place));
                Ok(Endpoint::docker(host, source, tls))
            }
            Some(("unix" | "ssh", _)) => Ok(Endpoint::docker(host, source, None)),
            _ => Err(EndpointError::Scheme(host)),
        }
    }

    fn pick(&self) -> Result<Endpoint, EndpointError> {
        let found = |host: &str, source: String| {
            Ok(Endpoint::docker(normal(host), source, self.tls.clone()))
        };
        match (&self.context, &self.host) {
            (Some(_), Some(_)) => return Err(EndpointError::Conflict),
            (Some(name), None) => return self.context(name, "--context"),
            (None, Some(host)) => return found(host, "-H".to_owned()),
            (None, None) => {}
        }
        if let Some(host) = &self.env_host {
            return found(host, "DOCKER_HOST".to_owned());
        }
        if let Some(name) = &self.env_context {
            return self.context(name, "DOCKER_CONTEXT");
        }
        let file = self.config.join("config.json");
        match read_json(&file)?
            .and_then(|config| config["currentContext"].as_str().map(str::to_owned))
        {
            Some(name) if !name.is_empty() => self.context(&name, &file.to_string_lossy()),
            _ => found(DEFAULT_HOST, DEFAULT.to_owned()),
        }
    }

    fn context(&self, name: &str, said_by: &str) -> Result<Endpoint, EndpointError> {
        if name == "default" {
            let host = self.env_host.as_deref().unwrap_or(DEFAULT_HOST);
            let source = format!("{said_by} default");
            return Ok(Endpoint::docker(normal(host), source, self.tls.clone()));
        }
        let mut known = vec!["default".to_owned()];
        for (folder, meta) in metas(&self.config.join("contexts/meta"))? {
            let its_name = meta["Name"].as_str().unwrap_or_default();
            if its_name == name {
                let docker = &meta["Endpoints"]["docker"];
                let host = normal(docker["Host"].as_str().unwrap_or(DEFAULT_HOST));
                let files = self.config.join("contexts/tls").join(folder).join("docker");
                let tls = tls_of_context(&files, docker["SkipTLSVerify"] == true);
                return Ok(Endpoint::docker(host, format!("{said_by} {name}"), tls));
            }
            known.push(its_name.to_owned());
        }
        Err(EndpointError::UnknownContext { name: name.to_owned(), known })
    }
}

/// `host:port` is `tcp://host:port`, `:port` is this machine's.
pub fn normal(host: &str) -> String {
    let host = host.trim();
    match host.split_once("://") {
        Some(("unix", "")) => DEFAULT_HOST.to_owned(),
        Some(_) => host.to_owned(),
        None if host.starts_with('/') => format!("unix://{host}"),
        None if host.starts_with(':') => format!("tcp://127.0.0.1{host}"),
        None => format!("tcp://{host}"),
    }
}

/// `PLACE`, with docker's port if it has none.
fn with_port(place: &str) -> String {
    let place = place.trim_end_matches('/');
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { place.to_owned() } else { format!("{place}:{PORT}") }
}

/// What docker makes of its flags and variables.
fn tls(run: Option<&DockerRun>) -> Option<Tls> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let switch = |name: &str| run.and_then(|run| run.global_switch(name));
    let verify = switch("tlsverify").unwrap_or_else(|| set("DOCKER_TLS_VERIFY").is_some());
    let asked = switch("tls").unwrap_or_else(|| set("DOCKER_TLS").is_some());
    if !(asked || verify || switch("tlsverify").is_some()) {
        return None;
    }
    let folder = set("DOCKER_CERT_PATH").map_or_else(config_folder, PathBuf::from);
    let given = |flag: &str| run.and_then(|run| run.global(flag)).map(PathBuf::from);
    let here = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let file = |flag: &str, name: &str| {
        let default = || Some(folder.join(name)).filter(|file| file.exists());
        given(flag).or_else(default).map(here)
    };
    let ca = given("tlscacert").unwrap_or_else(|| folder.join("ca.pem"));
    let (cert, key) = (file("tlscert", "cert.pem"), file("tlskey", "key.pem"));
    Some(Tls { ca: Some(here(ca)), cert, key, verify })
}

fn tls_of_context(folder: &Path, skip: bool) -> Option<Tls> {
    let file = |name: &str| Some(folder.join(name)).filter(|file| file.exists());
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let any = skip || ca.is_some() || cert.is_some() || key.is_some();
    any.then_some(Tls { ca, cert, key, verify: !skip })
}

/// docker's folder of this user's.
pub fn config_folder() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let home = || PathBuf::from(set("HOME").unwrap_or_else(|| "/root".into()));
    set("DOCKER_CONFIG").map_or_else(|| home().join(".docker"), PathBuf::from)
}

/// The contexts, each with its folder's name.
fn metas(folder: &Path) -> Result<Vec<(OsString, Value)>, EndpointError> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut metas = Vec::new();
    for entry in entries.flatten() {
        let meta = read_json(&entry.path().join("meta.json"))?;
        metas.extend(meta.map(|meta| (entry.file_name(), meta)));
    }
    Ok(metas)
}

fn read_json(path: &Path) -> Result<Option<Value>, EndpointError> {
    let failed = |source| EndpointError::File { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(content) => {
            serde_json::from_slice(&content).map(Some).map_err(|error| failed(error.into()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(config: &Path) -> Sources {
        Sources { config: config.to_owned(), ..Sources::default() }
    }

    fn with_context(current: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let meta = folder.path().join("contexts/meta/0123");
        fs::create_dir_all(&meta).expect("a folder");
        let text = r#"{"Name":"box","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///run/box.sock"}}}"#;
        fs::write(meta.join("meta.json"), text).expect("a context");
        let config = format!(r#"{{"currentContext":"{current}"}}"#);
        fs::write(folder.path().join("config.json"), config).expect("a config");
        folder
    }

    fn host(sources: &Sources) -> String {
        sources.resolve().map(|endpoint| endpoint.host).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn the_order_is_dockers() {
        let folder = with_context("box");
        let mut sources = sources(folder.path());
        assert_eq!(host(&sources), "unix:///run/box.sock");
        sources.env_context = Some("default".to_owned());
        assert_eq!(host(&sources), DEFAULT_HOST);
        sources.env_host = Some("tcp://there:2375".to_owned());
        assert_eq!(host(&sources), "tcp://there:2375");
        sources.context = Some("box".to_owned());
        assert_eq!(host(&sources), "unix:///run/box.sock");
        sources.host = Some("unix:///x".to_owned());
        assert!(host(&sources).starts_with("conflicting options"));
        sources.context = None;
        assert_eq!(host(&sources), "unix:///x");
    }

    #[test]
    fn without_any_word_it_is_dockers_default() {
        assert_eq!(host(&sources(Path::new("/nowhere"))), DEFAULT_HOST);
    }

    #[test]
    fn an_unknown_context_names_the_nearest() {
        let folder = with_context("");
        let sources = Sources { context: Some("bxo".to_owned()), ..sources(folder.path()) };
        let failure = Failure::from(sources.resolve().expect_err("unknown"));
        assert_eq!(failure.sentence, "context \"bxo\" does not exist");
        let other = Sources { context: Some("boxx".to_owned()), ..sources };
        let failure = Failure::from(other.resolve().expect_err("unknown"));
        assert!(failure.hint.expect("a hint").starts_with("did you mean box?"));
    }

    #[test]
    fn what_cannot_be_spoken_is_said() {
        let mut sources = sources(Path::new("/nowhere"));
        sources.host = Some("fd://3".to_owned());
        assert_eq!(host(&sources), "cannot talk to the engine at fd://3");
        sources.host = Some("ssh://me@box".to_owned());
        assert_eq!(host(&sources), "ssh://me@box");
    }

    #[test]
    fn a_port_that_is_not_given_is_dockers() {
        let mut sources = sources(Path::new("/nowhere"));
        sources.host = Some("tcp://box/".to_owned());
        assert_eq!(host(&sources), "tcp://box:2375");
        sources.host = Some(":1".to_owned());
        assert_eq!(host(&sources), "tcp://127.0.0.1:1");
    }

    #[test]
    fn a_context_brings_its_certificates() {
        let folder = with_context("box");
        let files = folder.path().join("contexts/tls/0123/docker");
        let tls = || sources(folder.path()).resolve().expect("a context").tls;
        let meta = folder.path().join("contexts/meta/0123/meta.json");
        let text = fs::read_to_string(&meta).expect("a context");
        fs::write(&meta, text.replace("unix:///run/box.sock", "tcp://box")).expect("written");
        assert_eq!(tls(), None);
        fs::create_dir_all(&files).expect("a folder");
        fs::write(files.join("ca.pem"), "").expect("written");
        let expected = Tls { ca: Some(files.join("ca.pem")), cert: None, key: None, verify: true };
        assert_eq!(tls(), Some(expected));
    }
}
