//! The usual stage in a cluster: a namespace with a target, its Service, and a client.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::manifest::{self, SERVERS};
use super::{Client, Cluster, Node, Pod, Space};
use crate::mirrord::{Mirrord, Session};
use crate::remote::Probe;
use crate::wait;

/// How long a new pod or Service may take until its clients reach it.
const STEADY: Duration = Duration::from_secs(45);
/// How long kube-proxy may take to know of a change.
const SERVICES: Duration = Duration::from_secs(15);

/// One test's namespace.
pub struct Scene<'c> {
    /// Where it is.
    pub cluster: &'c Cluster,
    /// The namespace.
    pub space: Space,
    client: Option<Client>,
}

impl<'c> Scene<'c> {
    /// An empty namespace.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub fn empty(cluster: &'c Cluster) -> Result<Self> {
        Self::labelled(cluster, &[])
    }

    /// An empty namespace with labels.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub fn labelled(cluster: &'c Cluster, labels: &[(&str, &str)]) -> Result<Self> {
        let space = Space::create(&cluster.kubectl, labels)?;
        Ok(Self { cluster, space, client: None })
    }

    /// The Deployment and Service `web` of one replica, and the pod `client`.
    ///
    /// # Errors
    /// If they don't come up.
    pub fn open(cluster: &'c Cluster) -> Result<Self> {
        let web = manifest::spec(&[manifest::probe("web", SERVERS)]);
        let web = manifest::workload("Deployment", "web", 1, web);
        let scene = Self::with(cluster, &[web, manifest::service("web", "web")])?;
        scene.space.ready("web", 1)?;
        Ok(scene)
    }

    /// These objects, and the pod `client`, which alone is waited for.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub fn with(cluster: &'c Cluster, objects: &[Value]) -> Result<Self> {
        let mut scene = Self::empty(cluster)?;
        scene.space.apply(objects)?;
        scene.add_client(json!({}))?;
        Ok(scene)
    }

    /// Adds the pod `client`, with more in its `spec`.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn add_client(&mut self, spec: Value) -> Result<()> {
        let pod = manifest::with(manifest::spec(&[manifest::probe("probe", "wait")]), spec);
        self.space.apply(&[manifest::pod("client", pod)])?;
        self.space.pod("client")?;
        self.client = Some(Client::enter(&self.space.kubectl, "client", "probe")?);
        Ok(())
    }

    /// A `mirrord` in the place of `target`.
    #[must_use]
    pub fn mirrord(&self, target: &str) -> Mirrord<'c> {
        self.aimed(Mirrord::new(&self.cluster.lab, target))
    }

    /// A `mirrord` without a target.
    #[must_use]
    pub fn targetless(&self) -> Mirrord<'c> {
        self.aimed(Mirrord::targetless(&self.cluster.lab))
    }

    /// A `mirrord` with another kubeconfig.
    #[must_use]
    pub fn mirrord_as(&self, config: &Path, target: &str) -> Mirrord<'c> {
        self.mirrord(target).env("KUBECONFIG", &config.to_string_lossy())
    }

    fn aimed(&self, mirrord: Mirrord<'c>) -> Mirrord<'c> {
        let config = self.space.kubectl.config().to_string_lossy().into_owned();
        mirrord.with(["-n", &self.space.name]).env("KUBECONFIG", &config)
    }

    /// What the client asks.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn client(&self) -> &Probe {
        self.client.as_ref().expect("a scene with a client").probe()
    }

    /// The only pod with `app=NAME`.
    ///
    /// # Errors
    /// If there is none, or several.
    pub fn pod(&self, app: &str) -> Result<Pod> {
        let pods = self.space.pods(app)?;
        ensure!(pods.len() == 1, "one pod of {app}: {pods:?}");
        pods.into_iter().next().ok_or_else(|| anyhow!("no pod of {app}"))
    }

    /// Who answers the client's HTTP request to `HOST:PORT`.
    ///
    /// # Errors
    /// If nobody does.
    pub fn answers(&self, at: &str) -> Result<Value> {
        Ok(self.client().must(&format!("ask {at} http /"))?["answer"].clone())
    }

    /// Waits until one whose name begins with `name` answers the client's HTTP request.
    ///
    /// # Errors
    /// If that never happens.
    pub fn until_answered_by(&self, name: &str, at: &str) -> Result<Value> {
        let answered = |patience| {
            wait::within(patience, &format!("{name} to answer {at}"), || {
                let answer = self.answers(at)?;
                let named = answer["name"].as_str().is_some_and(|text| text.starts_with(name));
                Ok(named.then_some(answer))
            })
        };
        if let Ok(answer) = answered(SERVICES) {
            return Ok(answer);
        }
        // By its address it must answer as it is; a Service may need its rules again.
        let by_name = !at.starts_with(|c: char| c.is_ascii_digit());
        if by_name && let Some(node) = self.space.pods("web")?.first().and_then(Node::of) {
            node.renew_services()?;
        }
        answered(STEADY)
    }

    /// A session whose app serves HTTP as `local` on port 80 in the target's place, with a steal
    /// that the client sees at `at`.
    ///
    /// # Errors
    /// If it does not come so far; the session's words are in the message.
    pub fn stealing(&self, mirrord: Mirrord<'c>, at: &str) -> Result<Session<'c>> {
        let session = mirrord.with(["--steal"]).probe("app")?;
        session.app().must("serve http 0.0.0.0:80 local")?;
        self.until_answered_by("local", at).with_context(|| session.stderr())?;
        Ok(session)
    }

    /// That nothing has happened to that pod: the same one, never started again.
    ///
    /// # Errors
    /// If something has.
    pub fn unharmed(&self, pod: &Pod) -> Result<()> {
        let now = self.space.pod(&pod.name)?;
        ensure!(now == *pod, "before {pod:?}, now {now:?}");
        Ok(())
    }
}
