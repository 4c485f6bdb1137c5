//! Where an agent without a target can run: on a node whose images are known through a pod.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::error::TargetError;
use super::pod::{Pods, TargetPod};
use super::workload::PAGE;
use crate::cluster::connect::{Cluster, ClusterError};

/// Every cluster has it, and pods in it.
const SYSTEM: &str = "kube-system";

/// A node, and an image that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The node.
    pub node: String,
    /// The image.
    pub image: String,
    /// The secrets of the namespace that the image is pulled with, if it is of that namespace.
    pub image_pull_secrets: Vec<String>,
}

/// A node with an image that an agent in the namespace can use.
///
/// # Errors
/// No pod tells of one that may be read.
pub async fn a_node(cluster: &Cluster, namespace: &str) -> Result<Host, TargetError> {
    let mut looked = Vec::new();
    for place in [Some(namespace), None, Some(SYSTEM)] {
        match pods(cluster, place).await {
            Ok(found) => match found.into_iter().next() {
                Some(pod) => return Ok(of(pod, namespace)),
                None => looked.push(match place {
                    Some(place) => format!("no pod of namespace {place} is ready"),
                    None => "no pod of the cluster is ready".to_owned(),
                }),
            },
            Err(ClusterError::Forbidden { right, user, .. }) => {
                looked.push(format!("{user} may not {right}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(TargetError::NoNode { looked })
}

fn of(pod: TargetPod, namespace: &str) -> Host {
    let image_pull_secrets = match pod.namespace == namespace {
        true => pod.image_pull_secrets,
        false => Vec::new(),
    };
    Host { node: pod.node, image: pod.image, image_pull_secrets }
}

async fn pods(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<TargetPod>, ClusterError> {
    let client = cluster.client.clone();
    let api: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let params = ListParams::default().fields("status.phase=Running").limit(PAGE);
    let doing = "cannot look for a node that an agent could run on";
    let list = cluster.ask(doing, api.list(&params)).await?;
    Ok(Pods::of(&list.items, None).ready)
}
