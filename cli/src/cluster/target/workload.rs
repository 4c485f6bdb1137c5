//! A workload, and how its pods are listed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, WatchParams};
use kube::core::{Expression, Selector};
use serde_json::Value;

use super::error::TargetError;
use super::near;
use super::pod::{Pods, TargetPod, Why, is_ours};
use crate::cluster::connect::{Cluster, ClusterError};
use crate::target::{ClusterTarget, Kind};

/// On the pods of a job: its name.
const JOB_LABEL: &str = "job-name";
/// How many objects one answer has at most.
pub const PAGE: u32 = 500;

/// A workload that was found, and how its pods are listed.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What was asked for.
    pub target: ClusterTarget,
    /// Where it is.
    pub namespace: String,
    listing: Listing,
    owner: Owner,
    /// Why it may have no pods.
    idle: Option<String>,
}

#[derive(Debug, Clone)]
enum Listing {
    Name(String),
    Labels(String),
}

/// Whose pods those that are listed must be: selectors of two workloads may overlap.
#[derive(Debug, Clone)]
enum Owner {
    Anybody,
    /// An object of this kind and name.
    Object(&'static str, String),
    /// A replica set of a deployment or rollout of this name, known by the hash in this label.
    ReplicaSetOf(&'static str, String),
    /// A job of the cron job of this name; which jobs are is remembered.
    JobOf(String, Arc<Mutex<HashMap<String, bool>>>),
}

impl Workload {
    /// Reads the object and finds out which pods it has; a pod itself is read with [`Self::pods`].
    ///
    /// # Errors
    /// It is not there, has no pods by its nature, or may not be read.
    pub async fn find(
        cluster: &Cluster,
        namespace: &str,
        target: &ClusterTarget,
    ) -> Result<Self, TargetError> {
        let name = &target.name;
        let workload = |listing, owner, idle| Self {
            target: target.clone(),
            namespace: namespace.to_owned(),
            listing,
            owner,
            idle,
        };
        if target.kind == Kind::Pod {
            return Ok(workload(Listing::Name(name.clone()), Owner::Anybody, None));
        }
        let object = read(cluster, namespace, target.kind, name).await?;
        let idle = idle(target.kind, &object);
        let owner = match target.kind {
            Kind::Deployment => Owner::ReplicaSetOf("pod-template-hash", name.clone()),
            Kind::Rollout => Owner::ReplicaSetOf("rollouts-pod-template-hash", name.clone()),
            Kind::CronJob => Owner::JobOf(name.clone(), Arc::default()),
            Kind::Service | Kind::Pod => Owner::Anybody,
            kind => Owner::Object(kind.object(), name.clone()),
        };
        let labels = match target.kind {
            Kind::CronJob => JOB_LABEL.to_owned(),
            Kind::Service => of_service(name, &object)?,
            Kind::Rollout => of_rollout(cluster, namespace, name, &object).await?,
            kind => of_selector(kind, name, &object["spec"]["selector"])?,
        };
        Ok(workload(Listing::Labels(labels), owner, idle))
    }

    /// Its pods that can be targets now, the one that is ready for longest first.
    ///
    /// # Errors
    /// None can, and why not.
    pub async fn pods(&self, cluster: &Cluster) -> Result<Vec<TargetPod>, TargetError> {
        let listed = self.list(cluster).await?;
        let pods = self.judge(cluster, listed.iter()).await?;
        if !pods.ready.is_empty() {
            return Ok(pods.ready);
        }
        Err(self.none(cluster, pods).await)
    }

    /// Everything that is listed, in pages.
    async fn list(&self, cluster: &Cluster) -> Result<Vec<Pod>, ClusterError> {
        Ok(self.list_at(cluster).await?.0)
    }

    /// The same, and the version that a watch goes on from.
    pub async fn list_at(
        &self,
        cluster: &Cluster,
    ) -> Result<(Vec<Pod>, Option<String>), ClusterError> {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let mut params = match &self.listing {
            Listing::Name(name) => ListParams::default().fields(&format!("metadata.name={name}")),
            Listing::Labels(labels) => ListParams::default().labels(labels),
        };
        params = params.limit(PAGE);
        let (doing, mut all) = (format!("cannot list the pods of {}", self.target), Vec::new());
        loop {
            let page = cluster.ask(&doing, api.list(&params)).await?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok((all, page.metadata.resource_version)),
            }
        }
    }

    pub fn watch_params(&self) -> WatchParams {
        match &self.listing {
            Listing::Name(name) => WatchParams::default().fields(&format!("metadata.name={name}")),
            Listing::Labels(labels) => WatchParams::default().labels(labels),
        }
    }

    /// Judges those of the pods that are the workload's own.
    pub async fn judge<'a>(
        &self,
        cluster: &Cluster,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Result<Pods, ClusterError> {
        let mut own = Vec::new();
        for pod in pods {
            if !is_ours(pod) && self.owns(cluster, pod).await? {
                own.push(pod);
            }
        }
        Ok(Pods::of(own, self.target.container.as_deref()))
    }

    async fn owns(&self, cluster: &Cluster, pod: &Pod) -> Result<bool, ClusterError> {
        let labels = pod.metadata.labels.as_ref();
        Ok(match &self.owner {
            Owner::Anybody => true,
            Owner::Object(kind, name) => controller(pod.metadata.owner_references.as_deref())
                .is_some_and(|owner| owner.kind == *kind && owner.name == *name),
            Owner::ReplicaSetOf(label, name) => {
                let hash = labels.and_then(|labels| labels.get(*label));
                let set = controller(pod.metadata.owner_references.as_deref());
                let of = |set: &OwnerReference| {
                    let parent = hash.and_then(|hash| set.name.strip_suffix(hash.as_str()));
                    parent.is_none_or(|parent| parent.strip_suffix('-') == Some(name))
                };
                set.is_none_or(of)
            }
            Owner::JobOf(name, known) => {
                let Some(job) = labels.and_then(|labels| labels.get(JOB_LABEL)) else {
                    return Ok(false);
                };
                let remembered =
                    known.lock().unwrap_or_else(PoisonError::into_inner).get(job).copied();
                if let Some(is) = remembered {
                    return Ok(is);
                }
                let is = self.is_of_cron_job(cluster, job, name).await?;
                known.lock().unwrap_or_else(PoisonError::into_inner).insert(job.clone(), is);
                is
            }
        })
    }

    async fn is_of_cron_job(
        &self,
        cluster: &Cluster,
        job: &str,
        cron_job: &str,
    ) -> Result<bool, ClusterError> {
        let api: Api<Job> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let doing = format!("cannot read the job {job}");
        let found = cluster.ask(&doing, api.get_metadata_opt(job)).await?;
        let owners = found.and_then(|found| found.metadata.owner_references);
        Ok(controller(owners.as_deref())
            .is_some_and(|owner| owner.kind == "CronJob" && owner.name == cron_job))
    }

    /// Why there is no target.
    async fn none(&self, cluster: &Cluster, pods: Pods) -> TargetError {
        let (kind, name) = (self.target.kind, self.target.name.clone());
        let namespace = self.namespace.clone();
        let Some(first) = pods.others.first() else {
            return match kind {
                Kind::Pod => near::not_found(cluster, &namespace, kind, &name).await,
                _ => TargetError::NoPods { kind, name, namespace, reason: self.idle.clone() },
            };
        };
        let all = |which: fn(&Why) -> bool| pods.others.iter().all(|other| which(&other.why));
        match &first.why {
            Why::HostNetwork if all(|why| matches!(why, Why::HostNetwork)) => {
                TargetError::HostNetwork { pod: first.pod.clone() }
            }
            Why::NoContainer(known) if all(|why| matches!(why, Why::NoContainer(_))) => {
                TargetError::NoContainer {
                    target: ClusterTarget { container: None, ..self.target.clone() },
                    container: self.target.container.clone().unwrap_or_default(),
                    known: known.clone(),
                }
            }
            _ => {
                TargetError::NoneReady { target: self.target.clone(), namespace, pods: pods.others }
            }
        }
    }
}

fn controller(owners: Option<&[OwnerReference]>) -> Option<&OwnerReference> {
    owners?.iter().find(|owner| owner.controller == Some(true))
}

/// How the API calls a kind.
pub fn resource(kind: Kind) -> ApiResource {
    let kind_of = GroupVersionKind::gvk(kind.group(), kind.version(), kind.object());
    ApiResource::from_gvk_with_plural(&kind_of, kind.plural())
}

async fn read(
    cluster: &Cluster,
    namespace: &str,
    kind: Kind,
    name: &str,
) -> Result<Value, TargetError> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), namespace, &resource(kind));
    match cluster.ask(&format!("cannot read the {kind} {name}"), api.get(name)).await {
        Ok(object) => Ok(object.data),
        Err(error) if error.is_not_found() => {
            Err(near::not_found(cluster, namespace, kind, name).await)
        }
        Err(error) if error.is_unknown_type() => Err(TargetError::UnknownKind(kind)),
        Err(error) => Err(error.into()),
    }
}

pub fn of_selector(kind: Kind, name: &str, value: &Value) -> Result<String, TargetError> {
    let bad = |reason: String| TargetError::Selector { kind, name: name.to_owned(), reason };
    let selector = serde_json::from_value::<Option<LabelSelector>>(value.clone())
        .map_err(|error| bad(error.to_string()))?
        .ok_or_else(|| bad("it has no selector".to_owned()))?;
    let selector = Selector::try_from(selector).map_err(|error| bad(error.to_string()))?;
    match selector.selects_all() {
        true => Err(bad("its selector is empty".to_owned())),
        false => Ok(selector.to_string()),
    }
}

pub fn of_service(name: &str, service: &Value) -> Result<String, TargetError> {
    let none = |reason: String| TargetError::Service { name: name.to_owned(), reason };
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        let elsewhere = spec["externalName"].as_str().unwrap_or_default();
        return Err(none(format!("it is another name of {elsewhere}")));
    }
    let labels: BTreeMap<String, String> =
        serde_json::from_value(spec["selector"].clone()).unwrap_or_default();
    let equal = labels.into_iter().map(|(label, value)| Expression::Equal(label, value));
    let selector: Selector = equal.collect();
    match selector.selects_all() {
        true => Err(none("it has no selector".to_owned())),
        false => Ok(selector.to_string()),
    }
}

/// A rollout's own selector, or that of the workload whose template it uses.
async fn of_rollout(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    rollout: &Value,
) -> Result<String, TargetError> {
    let spec = &rollout["spec"];
    let other = &spec["workloadRef"];
    if !spec["selector"].is_null() || other.is_null() {
        return of_selector(Kind::Rollout, name, &spec["selector"]);
    }
    let (kind, other) = (other["kind"].as_str(), other["name"].as_str());
    match (kind.and_then(Kind::of_word), other) {
        (Some(kind), Some(other)) => {
            let object = read(cluster, namespace, kind, other).await?;
            of_selector(Kind::Rollout, name, &object["spec"]["selector"])
        }
        _ => Err(TargetError::Selector {
            kind: Kind::Rollout,
            name: name.to_owned(),
            reason: "its workloadRef is not understood".to_owned(),
        }),
    }
}

/// Why a workload may have no pods.
pub fn idle(kind: Kind, object: &Value) -> Option<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let holds = |kind: &str| {
        conditions.iter().find(|c| c["type"] == kind && c["status"] == "True").cloned()
    };
    if spec["replicas"] == 0 {
        return Some("it is scaled to 0 replicas".to_owned());
    }
    if let Some(failure) = holds("ReplicaFailure") {
        return failure["message"].as_str().map(str::to_owned);
    }
    let ended = holds("Complete").or_else(|| holds("Failed"));
    match kind {
        _ if spec["suspend"] == true => Some("it is suspended".to_owned()),
        Kind::Job => {
            ended.map(|ended| format!("it has ended: {}", ended["type"].as_str().unwrap_or("?")))
        }
        Kind::CronJob => {
            let last = status["lastScheduleTime"].as_str();
            let last = last.map_or("has never run".to_owned(), |at| format!("began last at {at}"));
            Some(format!("no job of it is running; it {last}"))
        }
        Kind::DaemonSet if status["desiredNumberScheduled"] == 0 => {
            Some("no node is one for it".to_owned())
        }
        Kind::Service => Some("no pod has the labels that it selects".to_owned()),
        _ => None,
    }
}
