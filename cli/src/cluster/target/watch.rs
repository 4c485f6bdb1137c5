//! A workload's pods, as they come and go.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::WatchEvent;

use super::pod::{Pods, name};
use super::workload::Workload;
use crate::cluster::connect::{Cluster, ClusterError};

/// How long the API server keeps a watch open: so soon is a dead connection noticed.
const WATCH: Duration = Duration::from_secs(30);
/// Silence for so much longer means that the connection is dead.
const GRACE: Duration = Duration::from_secs(10);
/// The first pause after an error; each further one is twice as long, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(2);

type Events = Pin<Box<dyn Stream<Item = Result<WatchEvent<Pod>, kube::Error>> + Send>>;

/// Follows the pods of a workload: all of them at once, and again whenever something that counts
/// has changed. An API server that goes away is waited for: the first error of each outage is
/// told, the stream goes on.
pub fn watch_pods(
    cluster: &Cluster,
    workload: &Workload,
) -> Pin<Box<dyn Stream<Item = Result<Pods, ClusterError>> + Send>> {
    let watcher = Watcher {
        cluster: cluster.clone(),
        workload: workload.clone(),
        pods: BTreeMap::new(),
        version: None,
        events: None,
        told: None,
        failures: 0,
        pause: None,
    };
    Box::pin(stream::unfold(watcher, |mut watcher| async {
        let item = watcher.next().await;
        Some((item, watcher))
    }))
}

struct Watcher {
    cluster: Cluster,
    workload: Workload,
    pods: BTreeMap<String, Pod>,
    /// Where a watch goes on from; none before a list.
    version: Option<String>,
    events: Option<Events>,
    /// What was told last.
    told: Option<Pods>,
    /// Failures since something went well.
    failures: u32,
    /// How long to wait before anything else is asked.
    pause: Option<Duration>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Pods, ClusterError> {
        loop {
            if let Some(pause) = self.pause.take() {
                tokio::time::sleep(pause).await;
            }
            match self.changed().await {
                Ok(Some(pods)) => return Ok(pods),
                Ok(None) => {}
                Err(error) => {
                    if let Some(error) = self.failed(error) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Does one thing; what is there now, if that makes a difference.
    async fn changed(&mut self) -> Result<Option<Pods>, ClusterError> {
        if !self.step().await? {
            return Ok(None);
        }
        let judged = self.workload.judge(&self.cluster, self.pods.values()).await;
        let pods = judged.inspect_err(|_| self.version = None)?;
        if self.told.as_ref() == Some(&pods) {
            return Ok(None);
        }
        self.told = Some(pods.clone());
        Ok(Some(pods))
    }

    /// Plans a pause; the first failure of an outage is handed on.
    fn failed(&mut self, error: ClusterError) -> Option<ClusterError> {
        self.events = None;
        let factor = 1 << self.failures.min(5);
        self.failures += 1;
        self.pause = Some((FIRST_PAUSE * factor).min(LAST_PAUSE));
        (self.failures == 1).then_some(error)
    }

    /// Lists, watches or takes events; whether the pods may be others now.
    async fn step(&mut self) -> Result<bool, ClusterError> {
        if self.version.is_none() {
            self.events = None;
            let (list, version) = self.workload.list_at(&self.cluster).await?;
            self.pods = list.into_iter().map(|pod| (name(&pod), pod)).collect();
            self.version = Some(version.unwrap_or_default());
            self.failures = 0;
            return Ok(true);
        }
        let Some(events) = &mut self.events else {
            self.events = Some(self.watch().await?);
            return Ok(false);
        };
        match tokio::time::timeout(WATCH + GRACE, events.next()).await {
            Ok(Some(event)) => {
                let mut changed = self.take(event)?;
                while let Some(event) = self.waiting() {
                    changed |= self.take(event)?;
                }
                Ok(changed)
            }
            Ok(None) | Err(_) => {
                self.events = None;
                self.pause = Some(FIRST_PAUSE);
                Ok(false)
            }
        }
    }

    /// An event that is there already.
    fn waiting(&mut self) -> Option<Result<WatchEvent<Pod>, kube::Error>> {
        self.events.as_mut()?.next().now_or_never().flatten()
    }

    async fn watch(&mut self) -> Result<Events, ClusterError> {
        let client = self.cluster.client.clone();
        let api: Api<Pod> = Api::namespaced(client, &self.workload.namespace);
        let seconds = u32::try_from(WATCH.as_secs()).unwrap_or(u32::MAX);
        let params = self.workload.watch_params().timeout(seconds);
        let version = self.version.as_deref().unwrap_or_default();
        let doing = format!("cannot watch the pods of {}", self.workload.target);
        let events = self.cluster.ask(&doing, api.watch(&params, version)).await?;
        Ok(Box::pin(events))
    }

    fn take(&mut self, event: Result<WatchEvent<Pod>, kube::Error>) -> Result<bool, ClusterError> {
        let doing = "cannot watch the pods of the target";
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.events = None;
                return Err(self.cluster.explain(doing, error));
            }
        };
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                self.seen(pod.metadata.resource_version.as_deref());
                self.pods.insert(name(&pod), pod);
            }
            WatchEvent::Deleted(pod) => {
                self.seen(pod.metadata.resource_version.as_deref());
                self.pods.remove(&name(&pod));
            }
            WatchEvent::Bookmark(mark) => {
                self.seen(Some(&mark.metadata.resource_version));
                return Ok(false);
            }
            // The version is too old: what is there now is listed.
            WatchEvent::Error(_) => {
                self.events = None;
                self.version = None;
                self.pause = Some(FIRST_PAUSE);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn seen(&mut self, version: Option<&str>) {
        self.failures = 0;
        if let Some(version) = version {
            self.version = Some(version.to_owned());
        }
    }
}
