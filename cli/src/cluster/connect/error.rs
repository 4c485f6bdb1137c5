//! What goes wrong between us and an API server.

use std::error::Error as StdError;

use kube::client::AuthError;
use kube::config::KubeconfigError;
use kube::core::Status;

use crate::failure::{Failure, nearest};

/// Why the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No file, and not inside a pod.
    #[error("there is no kubeconfig")]
    NoKubeconfig {
        /// Where it was looked for.
        looked: Vec<String>,
    },
    /// A file that cannot be read.
    #[error("cannot read the kubeconfig {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is no kubeconfig.
    #[error("cannot understand the kubeconfig {path}")]
    Content {
        /// Which.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// No context is current.
    #[error("the kubeconfig has no current context")]
    NoContext {
        /// Those that there are.
        known: Vec<String>,
    },
    /// A context that is not there.
    #[error("the kubeconfig has no context {name:?}")]
    UnknownContext {
        /// What was looked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A context that leads nowhere.
    #[error("the kubeconfig's context {context:?} cannot be used")]
    Context {
        /// Which.
        context: String,
        /// What is wrong with it.
        cause: String,
    },
    /// No credentials.
    #[error("cannot get credentials for the cluster ({place})")]
    Credentials {
        /// Which cluster.
        place: Place,
        /// Why.
        cause: String,
    },
    /// Nothing answers.
    #[error("no API server answers at {}{}", .place.server, .place.by())]
    Unreachable {
        /// Where.
        place: Place,
        /// Why.
        cause: String,
    },
    /// Somebody answers whom we do not trust, or who does not trust us.
    #[error("cannot trust the API server at {}{}", .place.server, .place.by())]
    Certificate {
        /// Where.
        place: Place,
        /// Why.
        cause: String,
    },
    /// The credentials are not good.
    #[error("the API server at {} does not accept the credentials{}", .place.server, .place.by())]
    Unauthorized {
        /// Where.
        place: Place,
    },
    /// A permission is missing.
    #[error("{doing}")]
    Forbidden {
        /// What was being done.
        doing: String,
        /// Which permission: `get deployments.apps in namespace shop`.
        right: String,
        /// Who has not got it.
        user: String,
    },
    /// The API server answered with another error.
    #[error("{doing}")]
    Refused {
        /// What was being done.
        doing: String,
        /// HTTP's status code.
        code: u16,
        /// The API server's own words.
        message: String,
        /// Whether it was about an object that is not there, not about a path that is not served.
        named: bool,
    },
    /// Anything else.
    #[error("{doing}")]
    Other {
        /// What was being done.
        doing: String,
        /// What went wrong.
        cause: String,
    },
    /// We are stopping.
    #[error("mirrord is stopping")]
    Stopped,
}

/// Which API server, and who named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub server: String,
    /// The kubeconfig's context.
    pub context: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.context.as_deref().unwrap_or(&self.server))
    }
}

impl ClusterError {
    /// Whether it is about an object that is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, named: true, .. })
    }

    /// Whether the API server does not know the type of the object.
    pub fn is_unknown_type(&self) -> bool {
        matches!(self, Self::Refused { code: 404, named: false, .. })
    }

    /// Whether a permission is missing.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }

    /// Whether trying again cannot help.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            Self::Refused { code, .. } => matches!(code, 400..=499) && *code != 429 && *code != 410,
            Self::Other { .. } | Self::Credentials { .. } => false,
            _ => true,
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            ClusterError::NoKubeconfig { looked } => looked
                .into_iter()
                .fold(failure, |failure, path| failure.because(format!("no file {path}")))
                .hint("name one with --kubeconfig or KUBECONFIG; targets of Docker need none: -t container/NAME"),
            ClusterError::File { source, .. } => {
                failure.because(source.to_string()).hint("name another with --kubeconfig or KUBECONFIG")
            }
            ClusterError::Content { cause, .. } => {
                failure.because(cause).hint("see whether kubectl reads it: kubectl config view")
            }
            ClusterError::NoContext { known } => failure.hint(match known.as_slice() {
                [] => "see 'kubectl config get-contexts'".to_owned(),
                known => format!("choose one: --context {}", known.join(" or ")),
            }),
            ClusterError::UnknownContext { name, known } => {
                failure.hint(context_hint(&name, &known))
            }
            ClusterError::Context { cause, .. } => {
                failure.because(cause).hint("see 'kubectl config view', or choose another with --context")
            }
            ClusterError::Credentials { cause, .. } => failure
                .because(cause)
                .hint("try the same with kubectl: kubectl auth whoami"),
            ClusterError::Unreachable { cause, .. } => failure
                .because(cause)
                .hint("is the cluster up, and its network (VPN) reachable? try 'kubectl version'"),
            ClusterError::Certificate { cause, .. } => failure
                .because(cause)
                .hint("check certificate-authority in the kubeconfig; -c accepts any certificate"),
            ClusterError::Unauthorized { .. } => {
                failure.hint("they may have expired: log in again, then try 'kubectl auth whoami'")
            }
            ClusterError::Forbidden { right, user, .. } => failure
                .because(format!("{user} may not {right}"))
                .hint("ask for the Role of docs/rbac.md; 'mirrord doctor' lists all that is missing"),
            ClusterError::Refused { message, .. } => failure.because(message),
            ClusterError::Other { cause, .. } => failure.because(cause),
            ClusterError::Stopped => failure,
        }
    }
}

fn context_hint(name: &str, known: &[String]) -> String {
    match (nearest(name, known.iter().map(String::as_str)).as_slice(), known) {
        ([], []) => "see 'kubectl config get-contexts'".to_owned(),
        ([], known) if known.len() > 8 => {
            format!("there are {}; see 'kubectl config get-contexts'", known.len())
        }
        ([], known) => format!("contexts are: {}", known.join(", ")),
        (near, _) => format!("did you mean {}?", near.join(" or ")),
    }
}

/// An error of a kubeconfig that was read.
pub fn of_kubeconfig(context: &str, error: &KubeconfigError) -> ClusterError {
    ClusterError::Context { context: context.to_owned(), cause: deepest(error) }
}

impl Place {
    /// Who named the server.
    fn by(&self) -> String {
        let context = self.context.as_ref();
        context.map(|context| format!(" (context {context})")).unwrap_or_default()
    }

    /// What is said of an API server that does not answer.
    pub fn silent(&self) -> ClusterError {
        ClusterError::Unreachable { place: self.clone(), cause: "it does not answer".to_owned() }
    }

    /// Says what an error means.
    pub fn explain(&self, doing: &str, error: kube::Error) -> ClusterError {
        if let kube::Error::Api(status) = &error {
            return self.of_status(doing, status);
        }
        if let Some(auth) = chain(&error).find_map(|cause| cause.downcast_ref::<AuthError>()) {
            return ClusterError::Credentials { place: self.clone(), cause: of_auth(auth) };
        }
        let place = self.clone();
        let all: Vec<String> = chain(&error).map(ToString::to_string).collect();
        if all.iter().any(|cause| cause.contains("certificate") || cause.contains("fatal alert")) {
            return ClusterError::Certificate { place, cause: certificate(&deepest(&error)) };
        }
        let io = chain(&error).filter_map(|cause| cause.downcast_ref::<std::io::Error>()).last();
        match (io, &error) {
            (Some(io), _) if io.kind() == std::io::ErrorKind::TimedOut => place.silent(),
            (Some(_), _) => ClusterError::Unreachable { place, cause: deepest(&error) },
            (None, kube::Error::Service(_) | kube::Error::HyperError(_)) => {
                ClusterError::Unreachable { place, cause: deepest(&error) }
            }
            (None, _) => ClusterError::Other { doing: doing.to_owned(), cause: deepest(&error) },
        }
    }

    fn of_status(&self, doing: &str, status: &Status) -> ClusterError {
        let doing = doing.to_owned();
        match status.code {
            401 => return ClusterError::Unauthorized { place: self.clone() },
            403 => {
                if let Some((user, right)) = denied(&status.message) {
                    return ClusterError::Forbidden { doing, right, user };
                }
            }
            _ => {}
        }
        let named = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
        let message = match status.message.trim() {
            "" => format!("the API server answered with HTTP status {}", status.code),
            message => message.to_owned(),
        };
        ClusterError::Refused { doing, code: status.code, message, named }
    }
}

/// Credentials plugins may have written anything, credentials too: only their errors are shown.
fn of_auth(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { status, out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr);
            match said.lines().map(str::trim).rfind(|line| !line.is_empty()) {
                Some(said) => format!("the plugin says: {said}"),
                None => format!("the plugin ended with {status}"),
            }
        }
        AuthError::AuthExecParse(_) => "the plugin's answer is no ExecCredential".to_owned(),
        AuthError::AuthExecStart(cause) => format!("cannot run the plugin: {cause}"),
        other => deepest(other),
    }
}

fn certificate(cause: &str) -> String {
    match cause.strip_prefix("invalid peer certificate: ") {
        Some("UnknownIssuer") => "its certificate is of an authority that is not known".to_owned(),
        Some(reason) => format!("its certificate is not good: {reason}"),
        None => cause.to_owned(),
    }
}

/// `User "U" cannot V resource "R" in API group "G" in the namespace "N"`.
fn denied(message: &str) -> Option<(String, String)> {
    let (_, rest) = message.split_once("User \"")?;
    let (user, rest) = rest.split_once("\" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let group = rest.split_once("API group \"").and_then(|(_, rest)| rest.split_once('"'));
    let group = group.map(|(group, _)| group).filter(|group| !group.is_empty());
    let namespace = rest.split_once("namespace \"").and_then(|(_, rest)| rest.split_once('"'));
    let resource = match (group, resource.split_once('/')) {
        (Some(group), Some((resource, sub))) => format!("{resource}.{group}/{sub}"),
        (Some(group), None) => format!("{resource}.{group}"),
        (None, _) => resource.to_owned(),
    };
    let place = match namespace {
        Some((namespace, _)) => format!("in namespace {namespace}"),
        None => "in the whole cluster".to_owned(),
    };
    Some((user.to_owned(), format!("{verb} {resource} {place}")))
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (**error).source())
}

fn deepest(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}
