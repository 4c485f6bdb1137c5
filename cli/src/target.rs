//! `-t TYPE/NAME[/container/NAME]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, nearest};

/// The type of a Docker container among the targets.
pub const CONTAINER: &str = "container";
/// Names of objects are at most this long.
const LONGEST_NAME: usize = 253;
/// Names of containers in pods are at most this long.
const LONGEST_CONTAINER: usize = 63;

/// Whose place is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetName {
    /// A Docker container: its name or the beginning of its id.
    Container(String),
    /// A workload of a cluster.
    Cluster(ClusterTarget),
}

/// A workload of a cluster, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterTarget {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The container in its pods, if one was named.
    pub container: Option<String>,
}

/// What a target in a cluster can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A pod.
    Pod,
    /// A deployment.
    Deployment,
    /// A stateful set.
    StatefulSet,
    /// A daemon set.
    DaemonSet,
    /// A replica set.
    ReplicaSet,
    /// A job.
    Job,
    /// A cron job, through the job of it that runs.
    CronJob,
    /// A service, through the pods behind it.
    Service,
    /// A rollout of Argo.
    Rollout,
}

/// How a kind is called.
struct Row {
    kind: Kind,
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    group: &'static str,
    version: &'static str,
    object: &'static str,
}

const fn row(
    kind: Kind,
    (name, plural): (&'static str, &'static str),
    short: &'static [&'static str],
    (group, version): (&'static str, &'static str),
    object: &'static str,
) -> Row {
    Row { kind, name, plural, short, group, version, object }
}

const ROWS: &[Row] = &[
    row(Kind::Pod, ("pod", "pods"), &["po"], ("", "v1"), "Pod"),
    row(Kind::Deployment, ("deployment", "deployments"), &["deploy"], ("apps", "v1"), "Deployment"),
    row(
        Kind::StatefulSet,
        ("statefulset", "statefulsets"),
        &["sts"],
        ("apps", "v1"),
        "StatefulSet",
    ),
    row(Kind::DaemonSet, ("daemonset", "daemonsets"), &["ds"], ("apps", "v1"), "DaemonSet"),
    row(Kind::ReplicaSet, ("replicaset", "replicasets"), &["rs"], ("apps", "v1"), "ReplicaSet"),
    row(Kind::Job, ("job", "jobs"), &[], ("batch", "v1"), "Job"),
    row(Kind::CronJob, ("cronjob", "cronjobs"), &["cj"], ("batch", "v1"), "CronJob"),
    row(Kind::Service, ("service", "services"), &["svc"], ("", "v1"), "Service"),
    row(Kind::Rollout, ("rollout", "rollouts"), &["ro"], ("argoproj.io", "v1alpha1"), "Rollout"),
];

impl Kind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.kind)
    }

    /// The kind that a word names as kubectl would understand it: `deployment`, `deployments`,
    /// `deploy`, `deployment.apps`.
    pub fn of_word(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let (word, group) = word.split_once('.').map_or((&*word, None), |(w, g)| (w, Some(g)));
        let mut rows = ROWS.iter();
        let row = rows.find(|row| {
            let named = row.name == word || row.plural == word || row.short.contains(&word);
            named && group.is_none_or(|group| group == row.group)
        });
        row.map(|row| row.kind)
    }

    /// As in `-t`: `deployment`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// As in the API's paths: `deployments`.
    pub fn plural(self) -> &'static str {
        self.row().plural
    }

    /// The API's group, empty for the first one.
    pub fn group(self) -> &'static str {
        self.row().group
    }

    /// The version of the API's group.
    pub fn version(self) -> &'static str {
        self.row().version
    }

    /// As in an object: `Deployment`.
    pub fn object(self) -> &'static str {
        self.row().object
    }

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.kind == self).unwrap_or(&ROWS[0])
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a target cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetNameError {
    /// No slash, or nothing on one side of it.
    #[error("the target {0:?} is not TYPE/NAME")]
    Form(String),
    /// What follows the name is no container.
    #[error("the target {0:?} is not TYPE/NAME or TYPE/NAME/container/NAME")]
    Tail(String),
    /// A kind that nobody knows.
    #[error("there is no target of type {0:?}")]
    UnknownKind(String),
    /// A name that nothing in a cluster can have.
    #[error("no {what} can be called {name:?}")]
    Name {
        /// What would have it.
        what: String,
        /// The name.
        name: String,
    },
}

impl From<TargetNameError> for Failure {
    fn from(error: TargetNameError) -> Self {
        let hint = match &error {
            TargetNameError::Form(text) => form_hint(text),
            TargetNameError::Tail(text) => {
                let mut parts = text.splitn(3, '/');
                let (kind, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                format!("a container of its pods: -t {kind}/{name}/container/NAME")
            }
            TargetNameError::UnknownKind(kind) => match nearest(kind, words()).first() {
                Some(near) => format!("did you mean {near}?"),
                None => supported(),
            },
            TargetNameError::Name { .. } => {
                "names are lower-case letters, digits, '-' and '.'; see 'mirrord ls'".to_owned()
            }
        };
        Failure::new(error.to_string()).hint(hint)
    }
}

fn form_hint(text: &str) -> String {
    match text {
        "" => supported(),
        text if text.contains('/') => supported(),
        text if text == CONTAINER => "name it: -t container/NAME".to_owned(),
        text => match Kind::of_word(text) {
            Some(kind) => format!("name it: -t {kind}/NAME; see 'mirrord ls -t {kind}'"),
            None => format!(
                "did you mean -t deployment/{text}, -t pod/{text} or -t container/{text}? see 'mirrord ls'"
            ),
        },
    }
}

fn words() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name).chain([CONTAINER])
}

fn supported() -> String {
    let kinds: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    format!("types are {}, and container for one of Docker's", kinds.join(", "))
}

impl FromStr for TargetName {
    type Err = TargetNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || TargetNameError::Form(text.to_owned());
        let (word, rest) = text.split_once('/').ok_or_else(form)?;
        if word.is_empty() || rest.is_empty() {
            return Err(form());
        }
        if word == CONTAINER {
            let bad = rest.contains('/');
            return if bad { Err(form()) } else { Ok(Self::Container(rest.to_owned())) };
        }
        let kind =
            Kind::of_word(word).ok_or_else(|| TargetNameError::UnknownKind(word.to_owned()))?;
        let (name, container) = match rest.split_once("/container/") {
            Some((name, container)) => (name, Some(container)),
            None => (rest, None),
        };
        if name.is_empty() || name.contains('/') || container.is_some_and(|c| c.contains('/')) {
            return Err(TargetNameError::Tail(text.to_owned()));
        }
        check(name, kind.name(), LONGEST_NAME, true)?;
        if let Some(container) = container {
            check(container, CONTAINER, LONGEST_CONTAINER, false)?;
        }
        let container = container.map(str::to_owned);
        Ok(Self::Cluster(ClusterTarget { kind, name: name.to_owned(), container }))
    }
}

fn check(name: &str, what: &str, longest: usize, dots: bool) -> Result<(), TargetNameError> {
    let good = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || (dots && byte == b'.')
    };
    match !name.is_empty() && name.len() <= longest && name.bytes().all(good) {
        true => Ok(()),
        false => Err(TargetNameError::Name { what: what.to_owned(), name: name.to_owned() }),
    }
}

impl fmt::Display for ClusterTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)?;
        match &self.container {
            Some(container) => write!(f, "/{CONTAINER}/{container}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(name) => write!(f, "{CONTAINER}/{name}"),
            Self::Cluster(target) => target.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Failure {
        text.parse::<TargetName>().expect_err(text).into()
    }

    fn parsed(text: &str) -> String {
        text.parse::<TargetName>().expect(text).to_string()
    }

    #[test]
    fn a_container_is_named_by_its_name() {
        let target: TargetName = "container/orders".parse().expect("a target");
        assert_eq!(target, TargetName::Container("orders".to_owned()));
        assert_eq!(target.to_string(), "container/orders");
    }

    #[test]
    fn kinds_have_the_names_that_kubectl_gives_them() {
        for (word, kind) in [
            ("po", "pod"),
            ("deployments", "deployment"),
            ("deploy", "deployment"),
            ("deployment.apps", "deployment"),
            ("sts", "statefulset"),
            ("ds", "daemonset"),
            ("rs", "replicaset"),
            ("jobs", "job"),
            ("cj", "cronjob"),
            ("svc", "service"),
            ("Rollout", "rollout"),
        ] {
            assert_eq!(parsed(&format!("{word}/a")), format!("{kind}/a"));
        }
        assert_eq!(failure("deployment.batch/a").hint.as_deref(), Some("did you mean deployment?"));
    }

    #[test]
    fn a_container_of_a_pod_may_be_named() {
        let target: TargetName = "pod/web-0/container/app".parse().expect("a target");
        let TargetName::Cluster(target) = target else { panic!("of a cluster") };
        assert_eq!((target.name.as_str(), target.container.as_deref()), ("web-0", Some("app")));
        assert_eq!(target.to_string(), "pod/web-0/container/app");
        assert_eq!(parsed("pod/container"), "pod/container");
    }

    #[test]
    fn other_words_are_explained() {
        let hint = |text: &str| failure(text).hint.expect("a hint");
        assert!(hint("orders").starts_with(
            "did you mean -t deployment/orders, -t pod/orders or -t container/orders?"
        ));
        assert_eq!(hint("deploy"), "name it: -t deployment/NAME; see 'mirrord ls -t deployment'");
        assert_eq!(hint("containr/x"), "did you mean container?");
        assert_eq!(hint("deplyment/x"), "did you mean deployment?");
        assert!(hint("quux/x").starts_with("types are pod, deployment,"));
        assert_eq!(hint("pod/a/b"), "a container of its pods: -t pod/a/container/NAME");
        assert!(failure("pod/a/container/b/c").sentence.contains("TYPE/NAME/container/NAME"));
        for text in ["container/", "container/a/container/b", "pod/", "/a", ""] {
            assert!(failure(text).sentence.ends_with("is not TYPE/NAME"), "{text}");
        }
        assert_eq!(failure("pod/A_b").sentence, "no pod can be called \"A_b\"");
        assert_eq!(failure("pod/a/container/").sentence, "no container can be called \"\"");
    }
}
