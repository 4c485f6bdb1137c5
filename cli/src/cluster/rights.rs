//! What a session asks of the Kubernetes API, and whether the user may.
//!
//! A right is listed here for each request that a session sends, and no other: the Roles in
//! docs/rbac.md are made from the same lists.

mod role;

use std::collections::BTreeSet;
use std::fmt;

use futures_util::stream::{self, StreamExt};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

pub use self::role::role_yaml;
use super::connect::Cluster;
use super::settings::AgentMode;
use crate::failure::Failure;
use crate::target::Kind;

/// How many questions are asked at once.
const AT_ONCE: usize = 8;

/// One thing that a user may do, or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API's group, empty for the first one.
    pub group: &'static str,
    /// The resource, in the plural.
    pub resource: &'static str,
    /// A part of it.
    pub subresource: Option<&'static str>,
    /// What is done to it.
    pub verb: &'static str,
    /// Where.
    pub namespace: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(subresource) = self.subresource {
            write!(f, "/{subresource}")?;
        }
        write!(f, " in namespace {}", self.namespace)
    }
}

/// Rights to one resource: group, resource, its part, verbs.
type Line = (&'static str, &'static str, Option<&'static str>, &'static [&'static str]);

/// To find the pods of any target.
const PODS: &[Line] = &[("", "pods", None, &["list", "watch"])];
/// To start an agent as a job, and to talk to it.
const JOB: &[Line] = &[
    ("", "configmaps", None, &["create"]),
    ("", "events", None, &["list"]),
    ("", "pods", None, &["list"]),
    ("", "pods", Some("portforward"), &["create", "get"]),
    ("batch", "jobs", None, &["create", "delete", "patch"]),
];
/// To start an agent in the target's pod, and to talk to it.
const EPHEMERAL: &[Line] = &[
    ("", "pods", None, &["get", "list"]),
    ("", "pods", Some("attach"), &["create", "get"]),
    ("", "pods", Some("ephemeralcontainers"), &["patch"]),
    ("", "pods", Some("portforward"), &["create", "get"]),
];

/// To read the object that a target names.
fn of_kind(kind: Kind) -> Vec<Line> {
    let get: &[&str] = &["get"];
    match kind {
        Kind::Pod => Vec::new(),
        // Which job a pod belongs to is read, and which cron job the job does.
        Kind::CronJob => vec![("batch", "cronjobs", None, get), ("batch", "jobs", None, get)],
        kind => vec![(kind.group(), kind.plural(), None, get)],
    }
}

/// The rights of sessions, each once.
pub struct Rights;

impl Rights {
    /// Those that a session with a target of this kind (or none) needs.
    pub fn for_session(
        mode: AgentMode,
        kind: Option<Kind>,
        target_namespace: &str,
        agent_namespace: &str,
    ) -> Vec<Right> {
        let kinds = kind.map(of_kind).unwrap_or_default();
        gather(mode, &kinds, target_namespace, agent_namespace)
    }

    /// Those that sessions with targets of all kinds need.
    pub fn for_all(mode: AgentMode, target_namespace: &str, agent_namespace: &str) -> Vec<Right> {
        let kinds: Vec<Line> = Kind::all().flat_map(of_kind).collect();
        gather(mode, &kinds, target_namespace, agent_namespace)
    }
}

fn gather(mode: AgentMode, kinds: &[Line], target: &str, agent: &str) -> Vec<Right> {
    let agents = match mode {
        AgentMode::Job => spread(JOB, agent),
        AgentMode::Ephemeral => spread(EPHEMERAL, target),
    };
    let all: BTreeSet<Right> =
        spread(PODS, target).chain(spread(kinds, target)).chain(agents).collect();
    all.into_iter().collect()
}

fn spread<'a>(lines: &'a [Line], namespace: &'a str) -> Box<dyn Iterator<Item = Right> + 'a> {
    Box::new(lines.iter().flat_map(move |(group, resource, subresource, verbs)| {
        verbs.iter().map(move |verb| Right {
            group,
            resource,
            subresource: *subresource,
            verb,
            namespace: namespace.to_owned(),
        })
    }))
}

/// Asks for each right whether the user has it; `None` where that cannot be told.
pub async fn review(cluster: &Cluster, rights: &[Right]) -> Vec<(Right, Option<bool>)> {
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    stream::iter(rights.iter().cloned())
        .map(|right| {
            let api = api.clone();
            async move {
                let question = question(&right);
                let params = PostParams::default();
                let asked = cluster.ask("cannot ask", api.create(&params, &question)).await;
                let allowed = asked.ok().and_then(|answer| answer.status);
                (right, allowed.map(|status| status.allowed))
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

fn question(right: &Right) -> SelfSubjectAccessReview {
    let attributes = ResourceAttributes {
        group: Some(right.group.to_owned()),
        resource: Some(right.resource.to_owned()),
        subresource: right.subresource.map(str::to_owned),
        verb: Some(right.verb.to_owned()),
        namespace: Some(right.namespace.clone()),
        ..Default::default()
    };
    SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..Default::default()
        },
        ..Default::default()
    }
}

/// Checks rights before anything is created. Where the cluster does not tell, the session goes on
/// and sees.
///
/// # Errors
/// Rights are missing, each named.
pub async fn check(cluster: &Cluster, rights: &[Right]) -> Result<(), Failure> {
    let reviewed = review(cluster, rights).await;
    let missing: Vec<Right> = reviewed
        .into_iter()
        .filter(|(_, allowed)| *allowed == Some(false))
        .map(|(right, _)| right)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let which = cluster.context.as_ref().map(|context| format!(" (context {context})"));
    let sentence = format!("permissions are missing in the cluster{}", which.unwrap_or_default());
    let failure = missing.iter().fold(Failure::new(sentence), |failure, right| {
        failure.because(format!("you may not {right}"))
    });
    Err(failure
        .hint("ask for the Role of docs/rbac.md ('mirrord doctor --role job' prints it); 'mirrord doctor' checks all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(mode: AgentMode, kind: Option<Kind>) -> Vec<String> {
        let rights = Rights::for_session(mode, kind, "shop", "agents");
        rights.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_session_asks_for_what_it_uses_and_no_more() {
        assert_eq!(
            session(AgentMode::Job, Some(Kind::Deployment)),
            [
                "create configmaps in namespace agents",
                "list events in namespace agents",
                "list pods in namespace agents",
                "list pods in namespace shop",
                "watch pods in namespace shop",
                "create pods/portforward in namespace agents",
                "get pods/portforward in namespace agents",
                "get deployments.apps in namespace shop",
                "create jobs.batch in namespace agents",
                "delete jobs.batch in namespace agents",
                "patch jobs.batch in namespace agents",
            ]
        );
    }

    #[test]
    fn an_ephemeral_agent_needs_nothing_outside_the_targets_namespace() {
        let rights = session(AgentMode::Ephemeral, Some(Kind::Pod));
        assert!(rights.iter().all(|right| right.ends_with(" in namespace shop")), "{rights:?}");
        assert!(rights.contains(&"patch pods/ephemeralcontainers in namespace shop".to_owned()));
        assert!(!rights.iter().any(|right| right.contains("jobs")));
    }

    #[test]
    fn a_right_is_asked_for_once() {
        let rights = Rights::for_all(AgentMode::Job, "shop", "shop");
        let once: BTreeSet<_> = rights.iter().collect();
        assert_eq!(once.len(), rights.len());
    }
}
