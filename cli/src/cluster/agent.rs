//! An agent in the cluster: a pod or an ephemeral container that runs our own program.
//!
//! ```text
//!   job        a Job, its ConfigMap with the starter ─┐
//!                                                     ├─► starter ◄─ deliver ─ port-forward
//!   ephemeral  a container in the target's pod ───────┘       └─► agent
//! ```

mod ephemeral;
mod fate;
mod job;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use mirrord_protocol::Token;
use mirrord_protocol::control::{AgentConfig, AgentEvent};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::io::{ReadHalf, Take, WriteHalf};
use tokio::time::{sleep, timeout};

pub use fate::StartError;
pub use job::remove;

use super::connect::Cluster;
use super::delivery::{self, DeliveryError, Program};
use super::forward::Forward;
use super::settings::{AgentMode, AgentSettings};
use super::target::TargetPod;
use crate::failure::Failure;
use crate::session::SessionId;

/// Where an agent in a pod of its own listens: the pod has its loopback to itself.
const PORT: u16 = 28_018;
/// How often a port is tried that nobody listens on yet.
const RETRY: Duration = Duration::from_millis(40);
/// An agent says no more than a few lines.
const MOST_WORDS: u64 = 64 << 10;

/// Where an agent is to run.
#[derive(Debug, Clone)]
pub enum Place {
    /// Beside a target.
    Beside(Box<TargetPod>),
    /// On its own: a node and an image that the node has.
    Alone {
        /// The node; otherwise the scheduler chooses.
        node: Option<String>,
        /// The image.
        image: String,
        /// The secrets that it is pulled with.
        image_pull_secrets: Vec<String>,
    },
}

impl Place {
    /// The secrets of a namespace that the image there is pulled with.
    fn secrets(&self, namespace: &str) -> &[String] {
        match self {
            Self::Beside(target) if target.namespace == namespace => &target.image_pull_secrets,
            Self::Beside(_) => &[],
            Self::Alone { image_pull_secrets, .. } => image_pull_secrets,
        }
    }
}

/// What an agent is to be.
pub struct Order<'a> {
    /// Where.
    pub cluster: &'a Cluster,
    /// The user's wishes.
    pub settings: &'a AgentSettings,
    /// Whose.
    pub session: &'a SessionId,
    /// Its name, and that of its objects.
    pub name: String,
    /// The namespace of its objects.
    pub namespace: String,
    /// Its place.
    pub place: Place,
    /// Job or ephemeral container.
    pub mode: AgentMode,
    /// Whether it gets no capability at all, as strict pod security wants; it then takes no traffic.
    pub bare: bool,
    /// Whether it connects to unix sockets, and has to be allowed to write to them.
    pub unix_sockets: bool,
    /// What tunnels show, and who delivers the program.
    pub token: &'a Token,
    /// The program.
    pub program: &'a Program,
    /// What it is told once it runs.
    pub config: AgentConfig,
}

/// Where a running agent is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The port on its loopback.
    pub port: u16,
}

/// An agent that listens.
pub struct Agent {
    /// Where.
    pub site: Site,
    /// The Job or ephemeral container.
    pub name: String,
    lines: Lines<BufReader<Take<ReadHalf<Forward>>>>,
    input: WriteHalf<Forward>,
}

/// How long the steps of an agent's start took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// Until its starter answered.
    pub pod: Duration,
    /// Until it had the program and ran it.
    pub delivery: Duration,
}

impl Order<'_> {
    /// Creates the agent and waits until it listens.
    ///
    /// # Errors
    /// See [`StartError`]. What was created stays: [`remove`] takes it away.
    pub async fn start(&self) -> Result<(Agent, Took), StartError> {
        let patience = Duration::from_secs(self.settings.startup_timeout);
        match timeout(patience, self.start_patiently()).await {
            Ok(started) => started,
            Err(_) => Err(self.late(patience).await),
        }
    }

    async fn start_patiently(&self) -> Result<(Agent, Took), StartError> {
        let began = Instant::now();
        match self.mode {
            AgentMode::Job => {
                let site = job::create(self).await?;
                let ended = fate::of_pod(self, &site.pod);
                let settled = self.settle(&site, self.name.clone(), ended, began).await?;
                job::keep(self).await?;
                Ok(settled)
            }
            AgentMode::Ephemeral => {
                let created = ephemeral::create(self).await?;
                let ended = ephemeral::fate(self, &created);
                self.settle(&created.site, created.name.clone(), ended, began).await
            }
        }
    }

    /// From a pod that is being started to an agent that listens.
    async fn settle(
        &self,
        site: &Site,
        name: String,
        ended: impl Future<Output = StartError>,
        began: Instant,
    ) -> Result<(Agent, Took), StartError> {
        let (stream, answered) = tokio::select! {
            reached = self.reach(site) => reached?,
            ended = ended => return Err(ended),
        };
        let (reader, mut input) = tokio::io::split(stream);
        let mut line = serde_json::to_vec(&self.config).map_err(|e| self.failed(e))?;
        line.push(b'\n');
        input.write_all(&line).await.map_err(|e| self.failed(e))?;
        input.flush().await.map_err(|e| self.failed(e))?;
        let lines = BufReader::new(reader.take(MOST_WORDS)).lines();
        let mut agent = Agent { site: site.clone(), name, lines, input };
        match agent.next().await {
            Some(Ok(AgentEvent::Listening)) => {
                let took = Took { pod: answered - began, delivery: answered.elapsed() };
                Ok((agent, took))
            }
            Some(Ok(AgentEvent::Failed { causes })) => Err(self.failed(causes.join(": "))),
            // The kernel may refuse the program at the last moment, and the starter says so.
            Some(Err(words)) => Err(self.failed(delivery::refusal(&words).unwrap_or(&words))),
            None => Err(self.failed("it ended before it listened")),
        }
    }

    async fn ask<T>(
        &self,
        doing: &str,
        question: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, StartError> {
        self.cluster.ask(doing, question).await.map_err(StartError::of)
    }

    fn arguments(&self, port: u16) -> Vec<String> {
        delivery::arguments(port, self.token, self.program, self.settings.startup_timeout)
    }

    /// A stream to the agent, whose starter has taken the program; and when it began to.
    async fn reach(&self, site: &Site) -> Result<(Forward, Instant), StartError> {
        loop {
            let began = Instant::now();
            match self.deliver(site).await {
                Ok(stream) => return Ok((stream, began)),
                Err(Undelivered::Final(failure)) => return Err(failure),
                Err(Undelivered::NotYet) => sleep(RETRY).await,
            }
        }
    }

    async fn deliver(&self, site: &Site) -> Result<Forward, Undelivered> {
        let client = &self.cluster.client;
        let opened = Forward::open(client, &site.namespace, &site.pod, site.port).await;
        let mut stream = opened.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 403 => {
                let doing = "cannot forward a port to the agent's pod";
                let error = self.cluster.explain(doing, kube::Error::Api(status));
                Undelivered::Final(StartError::Failed(error.into()))
            }
            _ => Undelivered::NotYet,
        })?;
        match delivery::deliver(&mut stream, self.token, self.program).await {
            Ok(()) => Ok(stream),
            Err(DeliveryError::Introduce(_) | DeliveryError::HungUp) => Err(Undelivered::NotYet),
            Err(error) => {
                let failure = Failure::caused_by("the agent did not take its program", &error);
                Err(Undelivered::Final(StartError::Failed(failure)))
            }
        }
    }

    async fn late(&self, patience: Duration) -> StartError {
        let failure = Failure::new(format!(
            "the agent {} in namespace {} did not start in {} s",
            self.name,
            self.namespace,
            patience.as_secs()
        ));
        let why = fate::explain(self).await;
        StartError::Failed(why.into_iter().fold(failure, Failure::because).hint(
            "give it longer with agent.startup_timeout in the configuration file, or see \
             'kubectl describe' of its pod",
        ))
    }

    fn failed(&self, cause: impl ToString) -> StartError {
        let sentence = format!("the agent {} in the cluster could not start", self.name);
        StartError::Failed(Failure::new(sentence).because(cause.to_string()))
    }
}

/// Why a program has not arrived.
enum Undelivered {
    /// Nobody listens yet.
    NotYet,
    /// It will never.
    Final(StartError),
}

impl Agent {
    /// What it says next, or what is said in its place; `None` once the stream has ended.
    async fn next(&mut self) -> Option<Result<AgentEvent, String>> {
        let line = self.lines.next_line().await.ok()??;
        Some(serde_json::from_str(&line).map_err(|_| line))
    }

    /// Tells it to leave.
    pub async fn leave(&mut self) {
        let _ = self.input.write_all(b"\n").await;
        let _ = self.input.flush().await;
        let _ = self.input.shutdown().await;
    }
}

/// The name of a session's agent, the first or a later one.
pub fn name(session: &SessionId, number: u16) -> String {
    match number {
        0 => format!("mirrord-agent-{session}"),
        later => format!("mirrord-agent-{session}-{later}"),
    }
}

/// Whether an agent has ended, as far as the cluster says; one that can't be asked about has not.
pub async fn is_gone(cluster: &Cluster, site: &Site, name: &str) -> bool {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &site.namespace);
    let one = ListParams::default().fields(&format!("metadata.name={}", site.pod));
    match pods.list(&one).await.map(|list| list.items.into_iter().next()) {
        Err(_) => false,
        Ok(None) => true,
        Ok(Some(pod)) => {
            let ours = ephemeral::status(&pod, name).and_then(|status| status.state.as_ref());
            let over = ours.is_some_and(|state| state.terminated.is_some());
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            over || matches!(phase, Some("Failed" | "Succeeded"))
        }
    }
}
