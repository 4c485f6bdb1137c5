//! What can be a target in a cluster: names alone, in pages, all kinds at once.

use futures_util::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::Api;
use kube::api::{DynamicObject, ListParams, Request};
use serde::Deserialize;

use super::connect::{Cluster, ClusterError};
use super::target::resource;
use crate::engine::clean::SESSION_LABEL;
use crate::target::Kind;

/// How many objects one answer has at most.
const PAGE: u32 = 500;

/// Something that can be a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The containers of a pod, if they were asked for.
    pub containers: Vec<String>,
}

/// What is listed.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The namespace; none for all of them.
    pub namespace: Option<&'a str>,
    /// The kind; none for all of them.
    pub kind: Option<Kind>,
    /// Whether the containers of pods are wanted, which makes their answers larger.
    pub containers: bool,
}

/// What was found, and the kinds that could not be listed.
#[derive(Debug, Default)]
pub struct Listed {
    /// Sorted by kind, namespace and name.
    pub entries: Vec<Entry>,
    /// Why some are missing.
    pub failed: Vec<(Kind, ClusterError)>,
}

/// Lists all kinds at once.
pub async fn targets(cluster: &Cluster, query: Query<'_>) -> Listed {
    let kinds: Vec<Kind> =
        Kind::all().filter(|kind| query.kind.is_none_or(|only| only == *kind)).collect();
    let all = join_all(kinds.iter().map(|kind| of_kind(cluster, *kind, query))).await;
    let mut listed = Listed::default();
    for (kind, found) in kinds.into_iter().zip(all) {
        match found {
            Ok(found) => listed.entries.extend(found),
            // Argo need not be there.
            Err(error) if error.is_unknown_type() && query.kind.is_none() => {}
            Err(error) => listed.failed.push((kind, error)),
        }
    }
    listed.entries.sort();
    listed
}

async fn of_kind(
    cluster: &Cluster,
    kind: Kind,
    query: Query<'_>,
) -> Result<Vec<Entry>, ClusterError> {
    let fields = match kind {
        Kind::Pod => Some("status.phase=Running"),
        Kind::Job => Some("status.successful=0"),
        Kind::Service => Some("spec.type!=ExternalName"),
        _ => None,
    };
    let found = pages(cluster, kind, query, fields).await;
    match found {
        // An API server that cannot select by this field lists all.
        Err(ClusterError::Refused { code: 400, .. }) if fields.is_some() => {
            pages(cluster, kind, query, None).await
        }
        found => found,
    }
}

async fn pages(
    cluster: &Cluster,
    kind: Kind,
    query: Query<'_>,
    fields: Option<&str>,
) -> Result<Vec<Entry>, ClusterError> {
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = fields.map(str::to_owned);
    let mut entries = Vec::new();
    loop {
        let page = match kind == Kind::Pod && query.containers {
            true => pods(cluster, query, &params).await?,
            false => names(cluster, kind, query, &params).await?,
        };
        let all = page.items.into_iter().filter(|item| is_target(kind, &item.metadata));
        entries.extend(all.map(|item| Entry {
            kind,
            namespace: item.metadata.namespace.unwrap_or_default(),
            name: item.metadata.name.unwrap_or_default(),
            containers: item.spec.containers(),
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(entries),
        }
    }
}

/// One answer.
#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<Item>,
}

/// What is read of an object: its containers only if it is a pod.
#[derive(Debug, Deserialize)]
struct Item {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(default)]
    restart_policy: Option<String>,
}

impl Spec {
    /// Those that run side by side.
    fn containers(self) -> Vec<String> {
        let init = self.init_containers.into_iter();
        let sidecars = init.filter(|init| init.restart_policy.as_deref() == Some("Always"));
        self.containers.into_iter().chain(sidecars).map(|container| container.name).collect()
    }
}

async fn names(
    cluster: &Cluster,
    kind: Kind,
    query: Query<'_>,
    params: &ListParams,
) -> Result<Page, ClusterError> {
    let client = cluster.client.clone();
    let api: Api<DynamicObject> = match query.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource(kind)),
        None => Api::all_with(client, &resource(kind)),
    };
    let list = cluster.ask(&doing(kind), api.list_metadata(params)).await?;
    let items = list.items.into_iter();
    let items = items.map(|item| Item { metadata: item.metadata, spec: Spec::default() });
    Ok(Page { metadata: list.metadata, items: items.collect() })
}

async fn pods(
    cluster: &Cluster,
    query: Query<'_>,
    params: &ListParams,
) -> Result<Page, ClusterError> {
    let path = match query.namespace {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
        None => "/api/v1/pods".to_owned(),
    };
    let doing = doing(Kind::Pod);
    let request = Request::new(path).list(params).map_err(kube::Error::BuildRequest);
    let request = request.map_err(|error| cluster.explain(&doing, error))?;
    cluster.ask(&doing, cluster.client.request::<Page>(request)).await
}

fn doing(kind: Kind) -> String {
    format!("cannot list {}", kind.plural())
}

/// Whether an object can be a target, as far as its metadata tells.
fn is_target(kind: Kind, metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    let ours = labels.is_some_and(|labels| labels.contains_key(SESSION_LABEL));
    let owned = metadata.owner_references.iter().flatten().any(|o| o.controller == Some(true));
    let api = metadata.namespace.as_deref() == Some("default")
        && metadata.name.as_deref() == Some("kubernetes");
    match kind {
        _ if ours || metadata.deletion_timestamp.is_some() => false,
        // Those of deployments and rollouts: the owner is the target, and most are of the past.
        Kind::ReplicaSet => !owned,
        Kind::Service => !api,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_a_target_is_left_out() {
        let is =
            |kind, metadata| is_target(kind, &serde_json::from_value(metadata).expect("metadata"));
        let owned = json!({"name": "a", "ownerReferences": [{"apiVersion": "apps/v1",
            "kind": "Deployment", "name": "a", "uid": "u", "controller": true}]});
        assert!(!is(Kind::ReplicaSet, owned.clone()) && is(Kind::Pod, owned));
        assert!(!is(Kind::Pod, json!({"name": "a", "labels": {"mirrord.session": "x"}})));
        assert!(!is(Kind::Service, json!({"name": "kubernetes", "namespace": "default"})));
        assert!(is(Kind::Service, json!({"name": "kubernetes", "namespace": "shop"})));
    }

    #[test]
    fn the_containers_of_a_pod_are_those_that_run_side_by_side() {
        let page: Page = serde_json::from_value(json!({"metadata": {}, "items": [{
            "metadata": {"name": "a"},
            "spec": {
                "containers": [{"name": "app", "image": "x"}],
                "initContainers": [{"name": "once"}, {"name": "side", "restartPolicy": "Always"}],
            },
        }]}))
        .expect("a page");
        let containers: Vec<_> = page.items.into_iter().map(|i| i.spec.containers()).collect();
        assert_eq!(containers, [["app", "side"]]);
    }
}
