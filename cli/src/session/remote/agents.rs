//! The session's agents: one on each node, or in each pod.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mirrord_protocol::Token;
use mirrord_protocol::control::TargetIndex;
use tokio::sync::{Mutex, mpsc};

use crate::cluster::agent::{self, Agent, Order, Place, Site, StartError, Took};
use crate::cluster::connect::Cluster;
use crate::cluster::delivery::Program;
use crate::cluster::rights::{self, Rights};
use crate::cluster::settings::AgentMode;
use crate::failure::Failure;
use crate::session::beside::Deaths;
use crate::session::events::Event;
use crate::session::far::FarSaid;
use crate::session::{Plan, SessionId};

/// A session whose keeper is gone has had so many agents at most.
const GUESSES: u16 = 4;

/// The agents that there are, and what a new one needs.
pub struct Agents {
    plan: Plan,
    /// The cluster.
    pub cluster: Cluster,
    namespace: String,
    token: Token,
    program: Program,
    said: mpsc::Sender<FarSaid>,
    next: AtomicU16,
    posts: AtomicU16,
    bare: AtomicBool,
    living: Mutex<Living>,
}

/// The agent for a post.
pub struct Staffed {
    /// Where it listens.
    pub site: Site,
    /// How long its start took, if it was started now.
    pub took: Option<Took>,
    /// Whether it takes the place of one that has ended.
    pub again: bool,
}

/// Why there is no agent for a post.
#[derive(Debug)]
pub enum NoAgent {
    /// The API server is away.
    Passing(Failure),
    /// Trying again would not help.
    Lasting(Failure),
}

impl From<StartError> for NoAgent {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Unreachable(failure) => Self::Passing(failure),
            StartError::Failed(failure) => Self::Lasting(failure),
            StartError::NoShell => Self::Lasting(Failure::new("the image has no shell")),
            StartError::PodSecurity { policy, objections } => Self::Lasting(
                Failure::new(format!("pod security {policy:?} refuses the agent"))
                    .because(objections),
            ),
        }
    }
}

impl From<NoAgent> for Failure {
    fn from(error: NoAgent) -> Self {
        match error {
            NoAgent::Passing(failure) | NoAgent::Lasting(failure) => failure,
        }
    }
}

#[derive(Default)]
struct Living {
    /// By node in a Job's pod, by pod in an ephemeral container.
    by_place: HashMap<String, Agent>,
    /// Where the last one has ended.
    ended: HashSet<String>,
    /// Every Job that was made.
    jobs: Vec<String>,
    mode: Option<AgentMode>,
    /// Whether an agent has ever listened.
    had_one: bool,
    deaths: Deaths,
}

impl Agents {
    /// None yet.
    pub fn new(
        plan: &Plan,
        cluster: Cluster,
        namespace: String,
        token: &Token,
        program: Program,
        said: mpsc::Sender<FarSaid>,
    ) -> Self {
        Self {
            plan: plan.clone(),
            cluster,
            namespace,
            token: token.clone(),
            program,
            said,
            next: AtomicU16::new(0),
            posts: AtomicU16::new(0),
            bare: AtomicBool::new(false),
            living: Mutex::default(),
        }
    }

    /// Whether pod security left the agents without the right to take traffic.
    pub fn takes_no_traffic(&self) -> bool {
        self.bare.load(Ordering::Relaxed)
    }

    /// The number of one more post.
    pub fn new_post(&self) -> TargetIndex {
        self.posts.fetch_add(1, Ordering::Relaxed)
    }

    /// How long a cut may last.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.plan.cluster.agent.communication_timeout)
    }

    /// Whether an agent has ended, as far as the cluster says.
    pub async fn is_gone(&self, site: &Site) -> bool {
        let living = self.living.lock().await;
        let name = living.by_place.values().find(|agent| agent.site == *site);
        let Some(name) = name.map(|agent| agent.name.clone()) else { return true };
        drop(living);
        agent::is_gone(&self.cluster, site, &name).await
    }

    /// Where the agent for a post listens; one is started if there is none.
    ///
    /// # Errors
    /// It can't be started; not [`NoAgent::Lasting`] while the API server is away.
    pub async fn site(&self, post: &Place) -> Result<Staffed, NoAgent> {
        let mut living = self.living.lock().await;
        let mode = living.mode.or(self.plan.cluster.agent.mode);
        let place = key(post, mode.unwrap_or(AgentMode::Job));
        if let Some(agent) = living.by_place.get(&place) {
            return Ok(Staffed { site: agent.site.clone(), took: None, again: false });
        }
        let (agent, mode, took) = match self.start(post, mode, &mut living.jobs).await {
            // A pod that is going, say: another one may stand at the post in a moment.
            Err(NoAgent::Lasting(failure)) if !living.had_one => {
                return Err(NoAgent::Lasting(failure));
            }
            Err(NoAgent::Lasting(failure)) if !living.deaths.one_too_many() => {
                return Err(NoAgent::Passing(failure));
            }
            started => started?,
        };
        let site = agent.site.clone();
        living.mode = Some(mode);
        living.had_one = true;
        let place = key(post, mode);
        let again = living.ended.remove(&place);
        living.by_place.insert(place, agent);
        Ok(Staffed { site, took: Some(took), again })
    }

    /// Forgets an agent that has ended; the next call of [`Agents::site`] starts another.
    pub async fn ended(&self, site: &Site) -> Result<(), Failure> {
        let mut living = self.living.lock().await;
        let place = living.by_place.iter().find(|(_, agent)| agent.site == *site);
        let Some(place) = place.map(|(place, _)| place.clone()) else { return Ok(()) };
        living.by_place.remove(&place);
        living.ended.insert(place);
        match living.deaths.one_too_many() {
            true => Err(Failure::new("the agents in the cluster keep ending")),
            false => Ok(()),
        }
    }

    async fn start(
        &self,
        post: &Place,
        mode: Option<AgentMode>,
        jobs: &mut Vec<String>,
    ) -> Result<(Agent, AgentMode, Took), NoAgent> {
        let first = mode.unwrap_or(AgentMode::Job);
        let bare = self.takes_no_traffic();
        let refused = match self.start_as(post, first, bare, jobs).await {
            Ok((agent, took)) => return Ok((agent, first, took)),
            Err(StartError::PodSecurity { policy, objections }) => (policy, objections),
            Err(error) => return Err(error.into()),
        };
        let ephemeral = first == AgentMode::Ephemeral || mode.is_none();
        if !ephemeral || matches!(post, Place::Alone { .. }) {
            return Err(NoAgent::Lasting(self.refused(first, refused)));
        }
        if first == AgentMode::Job {
            self.warn(first, &refused.0, "trying an ephemeral container").await;
            self.may_be_ephemeral(&refused).await.map_err(NoAgent::Lasting)?;
            match self.start_as(post, AgentMode::Ephemeral, false, jobs).await {
                Ok((agent, took)) => return Ok((agent, AgentMode::Ephemeral, took)),
                Err(StartError::PodSecurity { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.warn(
            AgentMode::Ephemeral,
            &refused.0,
            "the agent goes without capabilities, and without the target's traffic",
        )
        .await;
        self.bare.store(true, Ordering::Relaxed);
        let started = self.start_as(post, AgentMode::Ephemeral, true, jobs).await;
        let (agent, took) = started?;
        Ok((agent, AgentMode::Ephemeral, took))
    }

    async fn may_be_ephemeral(&self, refused: &(String, String)) -> Result<(), Failure> {
        let namespace = self.plan.cluster.namespace.as_ref().unwrap_or(&self.cluster.namespace);
        let needed = Rights::for_session(AgentMode::Ephemeral, None, namespace, namespace);
        rights::check(&self.cluster, &needed).await.map_err(|failure| {
            let why = self.refused(AgentMode::Job, refused.clone());
            failure.causes.iter().fold(why.because(failure.sentence.clone()), |why, cause| {
                why.because(cause.clone())
            })
        })
    }

    async fn warn(&self, mode: AgentMode, policy: &str, then: &str) {
        let what = words(mode);
        let message = format!("pod security {policy:?} refuses the agent {what}: {then}");
        let _ = self.said.try_send(FarSaid::Event(Event::Warning { message }));
    }

    fn refused(&self, mode: AgentMode, (policy, objections): (String, String)) -> Failure {
        let what = words(mode);
        Failure::new(format!(
            "pod security {policy:?} of namespace {} refuses the agent {what}",
            self.namespace
        ))
        .because(objections)
        .hint(match mode {
            AgentMode::Job => {
                "put the agent in a namespace that allows it with --agent-namespace, \
                                   or try --agent-mode ephemeral"
            }
            AgentMode::Ephemeral => {
                "use --agent-mode job with --agent-namespace of a namespace \
                                         that allows it"
            }
        })
    }

    async fn start_as(
        &self,
        post: &Place,
        mode: AgentMode,
        bare: bool,
        jobs: &mut Vec<String>,
    ) -> Result<(Agent, Took), StartError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = agent::name(&self.plan.session, number);
        let node = match post {
            Place::Beside(target) => target.node_addresses.as_slice(),
            Place::Alone { .. } => &[],
        };
        let order = Order {
            cluster: &self.cluster,
            settings: &self.plan.cluster.agent,
            session: &self.plan.session,
            namespace: match (mode, post) {
                (AgentMode::Ephemeral, Place::Beside(target)) => target.namespace.clone(),
                _ => self.namespace.clone(),
            },
            place: post.clone(),
            mode,
            bare,
            unix_sockets: self.plan.unix_sockets(),
            token: &self.token,
            program: &self.program,
            config: self.plan.agent_remote(&self.token, node),
            name: name.clone(),
        };
        if mode == AgentMode::Job {
            jobs.push(name.clone());
        }
        let started = order.start().await;
        if started.is_err() && mode == AgentMode::Job {
            // It may not even be there; what remains is removed with the session.
            let _ = agent::remove(&self.cluster, &order.namespace, &name).await;
        }
        started
    }

    /// Takes all of them away.
    pub async fn remove(&self) -> Result<(), Failure> {
        let mut living = self.living.lock().await;
        let Living { by_place, jobs, .. } = &mut *living;
        join_all(by_place.values_mut().map(Agent::leave)).await;
        by_place.clear();
        let removals = jobs.iter().map(|name| agent::remove(&self.cluster, &self.namespace, name));
        let removed: Result<(), _> = join_all(removals).await.into_iter().collect();
        Ok(removed?)
    }
}

fn key(post: &Place, mode: AgentMode) -> String {
    match (post, mode) {
        (Place::Beside(target), AgentMode::Job) => target.node.clone(),
        (Place::Beside(target), AgentMode::Ephemeral) => target.uid.clone(),
        (Place::Alone { .. }, _) => String::new(),
    }
}

fn words(mode: AgentMode) -> &'static str {
    match mode {
        AgentMode::Job => "in a Job's pod",
        AgentMode::Ephemeral => "in an ephemeral container",
    }
}

/// Removes the Jobs that a session may have, by their names.
pub async fn remove_by_name(
    cluster: &Cluster,
    namespace: &str,
    session: &SessionId,
) -> Result<(), Failure> {
    let names = (0..GUESSES).map(|number| agent::name(session, number));
    let removals = names.map(|name| async move { agent::remove(cluster, namespace, &name).await });
    let removed: Result<(), _> = join_all(removals).await.into_iter().collect();
    Ok(removed?)
}
