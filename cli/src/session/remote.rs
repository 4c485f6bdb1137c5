//! Targets in a cluster, and the agents beside them.
//!
//! ```text
//!   follow ── which pod stands at which post ──► post (one a target) ══ port-forward ══► agent
//!                                                  └══ door ══► proxy
//! ```

mod agents;
mod follow;
mod post;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mirrord_protocol::Token;
use mirrord_protocol::control::{IncomingMode, TargetIndex};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::agents::Agents;
use self::follow::Follow;
use self::post::Assignment;
use super::Plan;
use super::door::Door;
use super::events::{Event, Reporter, Step, millis};
use super::far::FarSaid;
use crate::cluster::agent::Place;
use crate::cluster::connect::Cluster;
use crate::cluster::delivery::Program;
use crate::cluster::rights::{self, Rights};
use crate::cluster::settings::AgentMode;
use crate::cluster::target::{self, Host, Workload};
use crate::failure::Failure;
use crate::lock::Pinned;
use crate::target::{ClusterTarget, TargetName};

/// How long the cluster may take to accept that agents go.
const LEAVING: Duration = Duration::from_secs(5);
/// Between attempts to tell it.
const RETRY: Duration = Duration::from_millis(500);
/// What the far side may have to say before it is heard.
const UNHEARD: usize = 64;

/// What is asked of a cluster, found and allowed.
pub struct Found {
    cluster: Cluster,
    name: String,
    workload: Option<Workload>,
    posts: Vec<Place>,
    namespace: String,
}

/// The cluster's side of a session.
pub struct Remote {
    name: String,
    pinned: Pinned,
    said: mpsc::Receiver<FarSaid>,
    agents: Arc<Agents>,
    tasks: JoinSet<()>,
}

/// What the tasks of a session share.
#[derive(Clone)]
struct Context {
    agents: Arc<Agents>,
    said: mpsc::Sender<FarSaid>,
    /// The proxy's, once pipes may be handed over there.
    door: watch::Receiver<Option<Door>>,
}

impl Context {
    async fn say(&self, event: Event) {
        let _ = self.said.send(FarSaid::Event(event)).await;
    }

    async fn lost(&self, failure: Failure) {
        let _ = self.said.send(FarSaid::Lost(failure)).await;
    }
}

impl Found {
    /// Finds the targets, and makes sure that all that a session needs is allowed.
    pub async fn find(plan: &Plan) -> Result<Self, Failure> {
        let settings = &plan.cluster;
        let cluster = Cluster::connect(&settings.access).await?;
        let namespace = settings.namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
        let agent_namespace = settings.agent.namespace.clone().unwrap_or_else(|| namespace.clone());
        let target = match &plan.target {
            Some(TargetName::Cluster(target)) => Some(target),
            _ => None,
        };
        let mode = settings.agent.mode.unwrap_or(AgentMode::Job);
        let needed =
            Rights::for_session(mode, target.map(|t| t.kind), &namespace, &agent_namespace);
        let (allowed, found) = tokio::join!(rights::check(&cluster, &needed), async {
            match target {
                Some(target) => {
                    Self::targets(&cluster, &namespace, target, settings.all_replicas).await
                }
                None => {
                    Self::alone(&cluster, &namespace, plan).await.map(|post| (None, vec![post]))
                }
            }
        });
        allowed?;
        let (workload, posts) = found?;
        let name = target.map_or_else(|| "targetless".to_owned(), ToString::to_string);
        Ok(Self { cluster, name, workload, posts, namespace: agent_namespace })
    }

    async fn targets(
        cluster: &Cluster,
        namespace: &str,
        target: &ClusterTarget,
        all: bool,
    ) -> Result<(Option<Workload>, Vec<Place>), Failure> {
        let workload = Workload::find(cluster, namespace, target).await?;
        let mut pods = workload.pods(cluster).await?;
        if !all {
            pods.truncate(1);
        }
        let posts = pods.into_iter().map(|pod| Place::Beside(Box::new(pod))).collect();
        Ok((Some(workload), posts))
    }

    async fn alone(cluster: &Cluster, namespace: &str, plan: &Plan) -> Result<Place, Failure> {
        if let Some(image) = &plan.cluster.agent.image {
            let image = image.clone();
            return Ok(Place::Alone { node: None, image, image_pull_secrets: Vec::new() });
        }
        let Host { node, image, image_pull_secrets } = target::a_node(cluster, namespace).await?;
        Ok(Place::Alone { node: Some(node), image, image_pull_secrets })
    }

    /// How many targets the proxy waits for.
    pub fn count(&self) -> TargetIndex {
        TargetIndex::try_from(self.posts.len()).unwrap_or(TargetIndex::MAX)
    }

    /// The first target's host name and address.
    pub fn identity(&self) -> (String, Option<String>) {
        match self.posts.first() {
            Some(Place::Beside(pod)) => {
                (pod.hostname.clone(), pod.addresses.first().map(ToString::to_string))
            }
            _ => ("mirrord".to_owned(), None),
        }
    }

    /// The targets, as they are told to the user.
    pub fn name(&self) -> String {
        let pods: Vec<&str> = self
            .posts
            .iter()
            .filter_map(|post| match post {
                Place::Beside(pod) => Some(pod.pod.as_str()),
                Place::Alone { .. } => None,
            })
            .collect();
        match pods.as_slice() {
            [] => self.name.clone(),
            [pod] if self.name == format!("pod/{pod}") => self.name.clone(),
            pods => format!("{} ({})", self.name, pods.join(", ")),
        }
    }

    fn pinned(&self) -> Pinned {
        match self.posts.first() {
            Some(Place::Beside(pod)) => Pinned {
                container: Some(pod.container.clone()),
                image: Some(pod.image_id.clone()).filter(|id| !id.is_empty()),
                ports: pod.ports.clone(),
            },
            _ => Pinned::default(),
        }
    }

    /// Starts the agents, and the tasks that lead pipes to them.
    pub async fn start(
        self,
        plan: &Plan,
        token: &Token,
        door: watch::Receiver<Option<Door>>,
        reporter: &Reporter,
    ) -> Result<Remote, Failure> {
        let began = Instant::now();
        let (name, pinned) = (self.name(), self.pinned());
        let program = Program::of_ourselves()
            .await
            .map_err(|error| Failure::caused_by("cannot read the running executable", &error))?;
        let (said_tx, said) = mpsc::channel(UNHEARD);
        let agents =
            Agents::new(plan, self.cluster, self.namespace, token, program, said_tx.clone());
        let agents = Arc::new(agents);
        if let Err(failure) = staff(&self.posts, &agents, plan, reporter).await {
            // What could not even be begun may be gone already.
            let _ = timeout(LEAVING, agents.remove()).await;
            return Err(failure);
        }
        reporter.say(&Event::Step { step: Step::Agent, took: millis(began.elapsed()) });
        let context = Context { agents: agents.clone(), said: said_tx, door };
        let mut tasks = JoinSet::new();
        let posts: Vec<Assignment> =
            self.posts.into_iter().map(|at| post::open(&context, &mut tasks, at)).collect();
        match self.workload {
            Some(workload) => {
                let all = plan.cluster.all_replicas;
                tasks.spawn(Follow { context, workload, posts, all }.run());
            }
            // A post stands as long as somebody could assign it anew.
            None => {
                tasks.spawn(async move {
                    std::future::pending::<()>().await;
                    drop(posts);
                });
            }
        }
        Ok(Remote { name, pinned, said, agents, tasks })
    }
}

/// Sees to it that each post has an agent.
async fn staff(
    posts: &[Place],
    agents: &Agents,
    plan: &Plan,
    reporter: &Reporter,
) -> Result<(), Failure> {
    for post in posts {
        if let Some(took) = agents.site(post).await?.took {
            reporter.say(&Event::Step { step: Step::Pod, took: millis(took.pod) });
            reporter.say(&Event::Step { step: Step::Delivery, took: millis(took.delivery) });
        }
    }
    match agents.takes_no_traffic() && plan.incoming.mode == IncomingMode::Steal {
        false => Ok(()),
        true => Err(Failure::new("the agent may not take the target's traffic").hint(
            "the namespace's pod security allows it no capability: put the agent in a namespace \
             that does with --agent-namespace, or leave the traffic alone with --no-incoming",
        )),
    }
}

impl Remote {
    /// What of the target a run can depend on.
    pub fn pinned(&self) -> Pinned {
        self.pinned.clone()
    }

    /// The target, as messages name it.
    pub fn target(&self) -> &str {
        &self.name
    }

    /// What happens next. Can be cancelled without loss.
    pub async fn next(&mut self) -> FarSaid {
        match self.said.recv().await {
            Some(said) => said,
            None => std::future::pending().await,
        }
    }

    /// Takes the agents away; an API server that is away for a moment is waited for.
    pub async fn leave(&mut self) -> bool {
        self.tasks.shutdown().await;
        let removed = async {
            while self.agents.remove().await.is_err() {
                sleep(RETRY).await;
            }
        };
        timeout(LEAVING, removed).await.is_ok()
    }
}

/// Takes away what a session left in its cluster that had no time to do so itself; if there may be
/// late arrivals, those as well.
pub async fn clean(plan: &Plan, late_arrivals: bool) -> Result<(), Failure> {
    if !plan.is_remote() {
        return Ok(());
    }
    clean_cluster(plan, late_arrivals).await.map_err(|failure| {
        failure.hint(
            "the cluster removes the agent's Job by itself, soon after the agent has noticed; \
             'mirrord doctor' shows what is left",
        )
    })
}

async fn clean_cluster(plan: &Plan, late_arrivals: bool) -> Result<(), Failure> {
    let cluster = Cluster::connect(&plan.cluster.access).await?;
    let settings = &plan.cluster;
    let namespace = settings.agent.namespace.as_ref().or(settings.namespace.as_ref());
    let namespace = namespace.unwrap_or(&cluster.namespace).clone();
    agents::remove_by_name(&cluster, &namespace, &plan.session).await?;
    if late_arrivals {
        sleep(RETRY).await;
        agents::remove_by_name(&cluster, &namespace, &plan.session).await?;
    }
    Ok(())
}
