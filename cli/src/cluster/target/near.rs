//! What might have been meant by a name that is not there.

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DynamicObject, ListParams};

use super::error::TargetError;
use super::workload::{PAGE, resource};
use crate::cluster::connect::Cluster;
use crate::engine::clean::SESSION_LABEL;
use crate::failure::nearest;
use crate::target::Kind;

/// How many names are told when none is like the one that was looked for.
const FEW: usize = 8;
/// What people name when they mean another kind.
const LIKELY: &[Kind] =
    &[Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Service, Kind::CronJob];

/// What is there instead.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Names of the same kind in the namespace; none if they may not be listed.
    names: Option<Vec<String>>,
    /// Other namespaces that have the kind with the very name.
    elsewhere: Vec<String>,
    /// Other kinds of the very name.
    kinds: Vec<Kind>,
}

impl Neighbours {
    /// What to do about it.
    pub fn hint(&self, kind: Kind, name: &str, namespace: &str) -> String {
        if !self.elsewhere.is_empty() {
            return format!(
                "there is one in another namespace: -n {}",
                self.elsewhere.join(" or ")
            );
        }
        if !self.kinds.is_empty() {
            let kinds = self.kinds.iter().map(|kind| format!("{kind}/{name}"));
            return format!("did you mean {}?", kinds.collect::<Vec<_>>().join(" or "));
        }
        let Some(names) = &self.names else {
            return "see 'mirrord ls', or choose the namespace with -n".to_owned();
        };
        let near = nearest(name, names.iter().map(String::as_str));
        let all = || names.join(", ");
        match (near.as_slice(), names.len()) {
            ([], 0) => format!("it has no {}; see 'mirrord ls -n {namespace}'", kind.plural()),
            ([], count) if count > FEW => {
                format!("there are {count} others; see 'mirrord ls -n {namespace} -t {kind}'")
            }
            ([], _) => format!("{} are: {}", kind.plural(), all()),
            (near, _) => {
                let near = near.iter().map(|name| format!("{kind}/{name}"));
                format!("did you mean {}?", near.collect::<Vec<_>>().join(" or "))
            }
        }
    }
}

/// The error of a name that is not there, with what may be looked at of its surroundings.
pub async fn not_found(cluster: &Cluster, namespace: &str, kind: Kind, name: &str) -> TargetError {
    let here = Api::namespaced_with(cluster.client.clone(), namespace, &resource(kind));
    let all = Api::all_with(cluster.client.clone(), &resource(kind));
    let others = LIKELY.iter().filter(|other| **other != kind).map(|other| async move {
        let api = Api::namespaced_with(cluster.client.clone(), namespace, &resource(*other));
        let found = named(cluster, &api, &format!("metadata.name={name}")).await;
        found.is_some_and(|found| !found.is_empty()).then_some(*other)
    });
    let very = format!("metadata.name={name}");
    let (names, elsewhere, kinds, missing) = tokio::join!(
        named(cluster, &here, ""),
        named(cluster, &all, &very),
        join_all(others),
        no_namespace(cluster, namespace),
    );
    if let Some(known) = missing {
        return TargetError::NoNamespace { name: namespace.to_owned(), known };
    }
    let near = Neighbours {
        names: names.map(|found| found.into_iter().map(|(_, name)| name).collect()),
        elsewhere: elsewhere.into_iter().flatten().map(|(namespace, _)| namespace).collect(),
        kinds: kinds.into_iter().flatten().collect(),
    };
    TargetError::NotFound {
        kind,
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        near: Box::new(near),
    }
}

/// Namespaces and names of the first page of what a field selector selects, if it may be listed.
async fn named(
    cluster: &Cluster,
    api: &Api<DynamicObject>,
    fields: &str,
) -> Option<Vec<(String, String)>> {
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = Some(fields.to_owned()).filter(|fields| !fields.is_empty());
    let list = cluster.ask("cannot list", api.list_metadata(&params)).await.ok()?;
    let ours = |meta: &ObjectMeta| {
        meta.labels.as_ref().is_some_and(|labels| labels.contains_key(SESSION_LABEL))
    };
    let names = list.items.into_iter().map(|item| item.metadata).filter(|meta| !ours(meta));
    let names =
        names.map(|meta| (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()));
    Some(names.collect())
}

/// The namespaces that there are, if this one is known not to be among them.
async fn no_namespace(cluster: &Cluster, namespace: &str) -> Option<Vec<String>> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let found = cluster.ask("cannot read", api.get_metadata_opt(namespace)).await;
    if !matches!(found, Ok(None)) {
        return None;
    }
    let params = ListParams::default().limit(PAGE);
    let list = cluster.ask("cannot list", api.list_metadata(&params)).await;
    let list = list.map(|list| list.items).unwrap_or_default();
    Some(list.into_iter().filter_map(|item| item.metadata.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_said_the_surest_first() {
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let hint = |near: Neighbours| near.hint(Kind::Deployment, "ordres", "shop");
        let close = || Neighbours { names: names(&["orders", "web"]), ..Default::default() };
        assert_eq!(hint(close()), "did you mean deployment/orders?");
        let kinds = Neighbours { kinds: vec![Kind::StatefulSet], ..close() };
        assert_eq!(hint(kinds), "did you mean statefulset/ordres?");
        let elsewhere = Neighbours { elsewhere: vec!["other".to_owned()], ..close() };
        assert_eq!(hint(elsewhere), "there is one in another namespace: -n other");
        let far = Neighbours { names: names(&["web", "db"]), ..Default::default() };
        assert_eq!(hint(far), "deployments are: web, db");
        let empty = Neighbours { names: names(&[]), ..Default::default() };
        assert_eq!(hint(empty), "it has no deployments; see 'mirrord ls -n shop'");
        assert!(hint(Neighbours::default()).starts_with("see 'mirrord ls'"));
    }
}
