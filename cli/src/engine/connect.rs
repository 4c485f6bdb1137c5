//! A client of the engine, of an API version that both speak.

use std::io::ErrorKind;
use std::sync::Arc;

use bollard::errors::Error as BollardError;
use bollard::{ClientVersion, Docker};

use super::Endpoint;
use super::far::Way;
use crate::failure::Failure;

/// What we speak first: the newest that every supported engine speaks.
const PREFERRED: ClientVersion = ClientVersion { major_version: 1, minor_version: 44 };
/// The first version of engines that know CAP_BPF.
const KNOWS_BPF: usize = 42;
/// The first version that attaches several networks at once.
const SEVERAL_NETWORKS: usize = 44;
/// What answers for podman.
const PODMAN: &str = "podman service";
/// Seconds that a request may take to be answered.
const TIMEOUT: u64 = 120;

/// An engine that answers.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    endpoint: Arc<Endpoint>,
}

/// Why the engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing answers there.
    #[error("no {what} answers at {host} ({from})")]
    Unreachable {
        /// What should.
        what: &'static str,
        /// Its address.
        host: String,
        /// Who named it.
        from: String,
        /// What went wrong.
        cause: String,
    },
    /// The socket is there and is not ours.
    #[error("no permission to use the Docker Engine at {host} ({from})")]
    Permission {
        /// Its address.
        host: String,
        /// Who named it.
        from: String,
    },
    /// It answered with an error.
    #[error("{doing}")]
    Refused {
        /// What was being done.
        doing: String,
        /// HTTP's status code.
        status: u16,
        /// The engine's own words.
        message: String,
    },
    /// Anything else.
    #[error("{doing}")]
    Other {
        /// What was being done.
        doing: String,
        /// What went wrong.
        cause: String,
    },
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            EngineError::Unreachable { what, host, cause, .. } => {
                failure.because(cause).hint(unreachable_hint(what, &host))
            }
            EngineError::Permission { host, .. } => failure.hint(format!(
                "add yourself to the group of {} ('sudo usermod -aG docker $USER', then log in again), or use sudo",
                host.trim_start_matches("unix://")
            )),
            EngineError::Refused { message, .. } => match refusal_hint(&message) {
                Some(hint) => failure.because(message).hint(hint),
                None => failure.because(message),
            },
            EngineError::Other { cause, .. } => failure.because(cause),
        }
    }
}

/// What can be done where nothing answers.
fn unreachable_hint(what: &str, host: &str) -> String {
    match host.split_once("://") {
        _ if what == PODMAN => {
            "start it with 'podman system service', or leave out --url, --connection and \
             CONTAINER_HOST: then a session starts one itself"
                .into()
        }
        Some(("unix", _)) => {
            "start Docker, or name another engine with DOCKER_HOST or 'docker context use'".into()
        }
        Some(("ssh", place)) => format!(
            "'ssh {}' must work without a question: put the key into ssh-agent, and the host's \
             into known_hosts",
            place.split(['/', ':']).next().unwrap_or(place)
        ),
        _ => "check the address and the certificates: they come from -H, --tls…, --context, \
              DOCKER_HOST, DOCKER_CERT_PATH or 'docker context ls'"
            .into(),
    }
}

/// What can be done where the engine refuses what the user asked for.
fn refusal_hint(message: &str) -> Option<&'static str> {
    let hints = [
        ("port is already allocated", "choose another host port for -p, or see 'docker ps'"),
        ("address already in use", "choose another host port for -p: a program listens there"),
        ("HTTP request to an HTTPS", "the engine wants TLS: DOCKER_TLS_VERIFY=1, or --tlsverify"),
        ("user defined networks only", "make a network: docker network create"),
    ];
    let network = message.contains("network") && message.contains("not found");
    let known = hints.into_iter().find(|(words, _)| message.contains(words));
    known.map(|(_, hint)| hint).or(network.then_some("see 'docker network ls'"))
}

impl EngineError {
    /// Whether the engine said that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// The engine's own words, empty if it said nothing.
    pub fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } => message,
            _ => "",
        }
    }
}

impl Engine {
    /// A client; nothing is sent yet.
    pub fn new(endpoint: &Endpoint) -> Result<Self, EngineError> {
        Ok(Self { docker: client(endpoint, &PREFERRED)?, endpoint: Arc::new(endpoint.clone()) })
    }

    /// The same with the version that `error` says the engine speaks, if that is what it says.
    pub fn with_version_of(&self, error: &EngineError) -> Option<Self> {
        let version = spoken_version(error.message())?;
        let docker = client(&self.endpoint, &version).ok()?;
        Some(Self { docker, endpoint: self.endpoint.clone() })
    }

    /// Whether it answers, and speaks our version.
    pub async fn answer(&self) -> Result<(), EngineError> {
        let answer = self.docker.version().await;
        answer.map(drop).map_err(|error| self.explain("cannot ask the engine its version", error))
    }

    /// Whether root in its containers is another user of its machine. What is not known is not so.
    pub async fn remaps_users(&self) -> bool {
        let info = self.docker.info().await;
        let options = info.ok().and_then(|info| info.security_options).unwrap_or_default();
        options.iter().any(|option| option.contains("name=userns"))
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The client itself.
    pub fn api(&self) -> &Docker {
        &self.docker
    }

    /// Whether CAP_BPF is likely to suffice for what it is for: podman's seccomp filter wants more.
    pub fn knows_bpf(&self) -> bool {
        self.docker.client_version().minor_version >= KNOWS_BPF && !self.is_podman()
    }

    /// Whether a container can be created in several networks.
    pub fn several_networks(&self) -> bool {
        self.docker.client_version().minor_version >= SEVERAL_NETWORKS
    }

    /// Whether it is podman, as far as the command line says.
    pub fn is_podman(&self) -> bool {
        self.endpoint.podman.is_some()
    }

    /// What is said of an engine that does not answer.
    pub fn silent(&self) -> EngineError {
        unreachable(&self.endpoint, "it does not answer".to_owned())
    }

    /// Says what an error means, and what was being done.
    pub fn explain(&self, doing: &str, error: BollardError) -> EngineError {
        explain(&self.endpoint, doing, error)
    }
}

fn client(endpoint: &Endpoint, version: &ClientVersion) -> Result<Docker, EngineError> {
    let Endpoint { host, tls, .. } = endpoint;
    let client = match (host.split_once("://"), tls) {
        (Some(("ssh", place)), _) => match Way::ssh(place) {
            Some(way) => way.client(TIMEOUT, version),
            None => return Err(unreachable(endpoint, "it names no host".to_owned())),
        },
        (Some(("tcp", place)), Some(tls)) => match Way::tls(place, tls) {
            Ok(way) => way.client(TIMEOUT, version),
            Err(cause) => return Err(unreachable(endpoint, cause)),
        },
        (Some(("tcp", _)), None) => Docker::connect_with_http(host, TIMEOUT, version),
        _ => Docker::connect_with_unix(host, TIMEOUT, version),
    };
    client.map_err(|error| explain(endpoint, "connecting", error))
}

fn explain(endpoint: &Endpoint, doing: &str, error: BollardError) -> EngineError {
    match error {
        BollardError::DockerResponseServerError { status_code, message } => {
            let message = match message.as_str() {
                "" => format!("the engine answered with HTTP status {status_code}"),
                _ => message,
            };
            EngineError::Refused { doing: doing.to_owned(), status: status_code, message }
        }
        BollardError::SocketNotFoundError(path) => unreachable(endpoint, socket_cause(&path)),
        BollardError::IOError { err } if err.kind() == ErrorKind::Other => {
            unreachable(endpoint, err.to_string())
        }
        BollardError::RequestTimeoutError => unreachable(endpoint, "it does not answer".to_owned()),
        other => match io_cause(&other) {
            Some(ErrorKind::PermissionDenied) => EngineError::Permission {
                host: endpoint.host.clone(),
                from: endpoint.source.clone(),
            },
            Some(kind) => {
                unreachable(endpoint, deepest(&other).unwrap_or_else(|| kind.to_string()))
            }

            None => EngineError::Other { doing: doing.to_owned(), cause: other.to_string() },
        },
    }
}

fn unreachable(endpoint: &Endpoint, cause: String) -> EngineError {
    let what = if endpoint.podman.is_some() { PODMAN } else { "Docker Engine" };
    let (host, from) = (endpoint.host.clone(), endpoint.source.clone());
    EngineError::Unreachable { what, host, from, cause }
}

/// A path that cannot be seen may be forbidden rather than absent.
fn socket_cause(path: &str) -> String {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            format!("no permission to look at {path}")
        }
        _ => format!("there is no socket {path}"),
    }
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn io_cause(error: &BollardError) -> Option<ErrorKind> {
    chain(error)
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .last()
        .map(|io| io.kind())
}

fn deepest(error: &BollardError) -> Option<String> {
    chain(error).last().map(ToString::to_string)
}

/// `client version 1.44 is too new. Maximum supported API version is 1.41`, or the opposite.
fn spoken_version(message: &str) -> Option<ClientVersion> {
    let (_, version) = message.split_once("supported API version is ")?;
    let version: String =
        version.chars().take_while(|char| char.is_ascii_digit() || *char == '.').collect();
    let (major, minor) = version.trim_end_matches('.').split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_names_the_version_it_speaks() {
        let too_new = "client version 1.44 is too new. Maximum supported API version is 1.41";
        let too_old =
            "client version 1.44 is too old. Minimum supported API version is 1.48, please upgrade";
        let minor = |text| spoken_version(text).map(|version| version.minor_version);
        assert_eq!(minor(too_new), Some(41));
        assert_eq!(minor(too_old), Some(48));
        assert_eq!(minor("No such container"), None);
    }

    #[test]
    fn a_socket_that_is_not_there_is_said_so() {
        let endpoint = Endpoint {
            host: "unix:///nowhere/docker.sock".to_owned(),
            source: "DOCKER_HOST".to_owned(),
            tls: None,
            podman: None,
        };
        let failure = Failure::from(Engine::new(&endpoint).expect_err("nothing there"));
        assert_eq!(
            failure.sentence,
            "no Docker Engine answers at unix:///nowhere/docker.sock (DOCKER_HOST)"
        );
        assert_eq!(failure.causes, ["there is no socket /nowhere/docker.sock"]);
    }
}
