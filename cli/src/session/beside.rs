//! A target in an engine that we can talk to, and the agent in its namespaces.

mod pipe;

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use mirrord_protocol::Token;
use mirrord_protocol::control::AgentEvent;
use tokio::time::{sleep, timeout};

use self::pipe::Lead;
use super::Plan;
use super::bring_up::{self, part_failed};
use super::containers::{Running, Said};
use super::door::Door;
use super::events::Event;
use super::far::FarSaid;
use crate::engine::connect::EngineError;
use crate::engine::containers::{Common, Role};
use crate::engine::target::{self, Target};
use crate::engine::{Engine, clean};
use crate::failure::Failure;
use crate::lock::Pinned;

/// How many agents may die in how long before the session gives up.
const AGENT_DEATHS: (usize, Duration) = (3, Duration::from_secs(60));
/// How long the engine may take to remove a container that has ended.
const REMOVAL: Duration = Duration::from_secs(2);
/// How long an agent may take to leave that is told to.
const LEAVING: Duration = Duration::from_secs(1);
/// How often an engine that does not answer is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a target may take to be seen as stopped after its agent has died with it.
const TARGET_SEEN: Duration = Duration::from_secs(2);

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;

/// The target and its agent.
pub struct Beside {
    with: With,
    agent: Running,
    target_end: Future<Failure>,
    deaths: Deaths,
    last_cause: Option<String>,
    state: State,
    /// The way to a proxy that shares no volume with the agent.
    pipe: Option<Lead>,
}

/// What a new agent needs.
#[derive(Clone)]
pub struct With {
    /// Whose it is.
    pub plan: Plan,
    /// Where it is created.
    pub engine: Engine,
    /// Whom it runs beside.
    pub target: Target,
    /// Where the proxy is.
    pub door: Door,
    /// The sidecar whose volume agent and proxy share, if they do.
    pub volume: Option<String>,
    /// Whether the engine gives containers other users than the machine's.
    pub remaps_users: bool,
    /// The session's secret.
    pub token: Token,
    /// Our image.
    pub image: String,
}

enum State {
    /// The session is not ready yet: an agent that ends is its end.
    Starting,
    /// An agent that ends is replaced.
    Serving,
    /// A new agent is on its way.
    Replacing(Future<Result<Running, Failure>>),
    /// There is no agent any more; why is being found out.
    Ending(Future<Failure>),
}

impl Beside {
    /// The target with its first agent.
    pub fn new(with: With, agent: Running) -> Self {
        let (engine, target) = (with.engine.clone(), with.target.clone());
        let target_end = Box::pin(async move {
            while !clean::not_running(&engine, &target.id).await {
                sleep(PAUSE).await;
            }
            target_stopped(&engine, &target).await
        });
        let pipe = match &with.volume {
            Some(_) => None,
            None => Some(Lead::start(&with.engine, &with.door, &agent.id)),
        };
        Self {
            with,
            agent,
            target_end,
            deaths: Deaths::default(),
            last_cause: None,
            state: State::Starting,
            pipe,
        }
    }

    /// The session is ready: from now on an agent that ends is replaced.
    pub fn ready(&mut self) {
        self.state = State::Serving;
    }

    /// The target's name.
    pub fn target(&self) -> &str {
        &self.with.target.name
    }

    /// What of the target a run can depend on.
    pub fn pinned(&self) -> Pinned {
        self.with.target.pinned.clone()
    }

    /// Whether a new agent is on its way.
    pub fn is_unsettled(&self) -> bool {
        matches!(self.state, State::Replacing(_))
    }

    /// The last lines of the agent's log.
    pub fn last_words(&self) -> &[String] {
        self.agent.last_words()
    }

    /// What happens next. Can be cancelled without loss.
    pub async fn next(&mut self) -> FarSaid {
        loop {
            let serving = !matches!(self.state, State::Starting);
            let said = tokio::select! {
                failure = &mut self.target_end, if serving => FarSaid::Lost(failure),
                said = act(&mut self.state, &mut self.agent) => match said {
                    Act::Said(said) => match self.heard(said) {
                        Some(said) => said,
                        None => continue,
                    },
                    Act::Replaced(Ok(agent)) => {
                        if let Some(pipe) = &self.pipe {
                            pipe.to(&agent.id);
                        }
                        self.agent = agent;
                        self.state = State::Serving;
                        FarSaid::Event(Event::AgentRestarted { reason: self.last_cause.take() })
                    }
                    Act::Replaced(Err(failure)) => {
                        self.state = State::Ending(Box::pin(unless_target_ends(failure)));
                        continue;
                    }
                    Act::Ending(failure) => FarSaid::Lost(failure),
                },
            };
            return said;
        }
    }

    fn heard(&mut self, said: Said<AgentEvent>) -> Option<FarSaid> {
        let starting = matches!(self.state, State::Starting);
        match said {
            Said::Event(AgentEvent::Failed { causes }) if starting => self.could_not_start(causes),
            Said::Event(AgentEvent::Failed { causes }) => {
                self.last_cause = causes.into_iter().next();
            }
            Said::Event(AgentEvent::Listening) => {}
            Said::Log(line) => {
                let from = Role::Agent.word().to_owned();
                return Some(FarSaid::Event(Event::Log { from, line }));
            }
            Said::Ended if starting => self.could_not_start(self.agent.last_words().to_vec()),
            Said::Ended if self.deaths.one_too_many() => {
                let failure = agents_end(self.agent.last_words());
                self.state = State::Ending(Box::pin(unless_target_ends(failure)));
            }
            Said::Ended => {
                let (with, ended) = (self.with.clone(), self.agent.id.clone());
                self.state = State::Replacing(Box::pin(async move { with.replace(&ended).await }));
            }
        }
        None
    }

    fn could_not_start(&mut self, words: Vec<String>) {
        let (engine, target) = (self.with.engine.clone(), self.with.target.clone());
        self.state = State::Ending(Box::pin(async move {
            if !target::still_runs(&engine, &target).await {
                return target_stopped(&engine, &target).await;
            }
            let sentence = "the agent beside the target could not start".to_owned();
            part_failed([sentence].into_iter().chain(words).collect())
        }));
    }

    /// Has the agent leave: it would wait a while for another proxy. One that goes by itself is
    /// gone sooner than one that the engine has to kill.
    pub async fn leave(&mut self) -> bool {
        let told = self.agent.dismiss().await;
        let (engine, id) = (&self.with.engine, &self.agent.id);
        let left = told && timeout(LEAVING, clean::removed(engine, id)).await == Ok(true);
        left || clean::remove(engine, id).await.is_ok()
    }
}

enum Act {
    Said(Said<AgentEvent>),
    Replaced(Result<Running, Failure>),
    Ending(Failure),
}

/// One step of what the state waits for. Can be cancelled without loss.
async fn act(state: &mut State, agent: &mut Running) -> Act {
    match state {
        State::Starting | State::Serving => Act::Said(agent.next().await),
        State::Replacing(made) => Act::Replaced(made.await),
        State::Ending(failure) => Act::Ending(failure.await),
    }
}

impl With {
    /// Starts another agent in the place of one that has ended. One that is being created when
    /// this is dropped may still show up.
    async fn replace(self, ended: &str) -> Result<Running, Failure> {
        let _ = timeout(REMOVAL, clean::removed(&self.engine, ended)).await;
        if !target::still_runs(&self.engine, &self.target).await {
            return Err(target_stopped(&self.engine, &self.target).await);
        }
        self.start_agent().await
    }

    fn common(&self) -> Common<'_> {
        self.plan.common(&self.engine, &self.image)
    }

    /// Creates an agent beside the target, and starts it.
    pub async fn start_agent(&self) -> Result<Running, Failure> {
        self.start_created(self.create_agent().await?).await
    }

    /// Creates an agent beside the target.
    pub async fn create_agent(&self) -> Result<String, EngineError> {
        let volume = self.volume.as_deref();
        self.common().create_agent(&self.target, volume, self.remaps_users).await
    }

    /// Starts an agent that was created.
    pub async fn start_created(&self, id: String) -> Result<Running, Failure> {
        let config = self.plan.agent_beside(&self.token, self.target.pid);
        bring_up::start(&self.common(), Role::Agent, id, &config).await
    }
}

/// A failure that the target's own end may still explain better.
async fn unless_target_ends(failure: Failure) -> Failure {
    tokio::time::sleep(TARGET_SEEN).await;
    failure
}

/// What is said when the target's container does not run any more.
pub async fn target_stopped(engine: &Engine, target: &Target) -> Failure {
    let name = &target.name;
    match target::can_be_started(engine, target).await {
        true => Failure::new(format!("the target container {name} stopped"))
            .hint(format!("start it and run the command again: docker start {name}")),
        false => Failure::new(format!("the target container {name} stopped, and was removed"))
            .hint("create it anew, then run the command again"),
    }
}

/// What is said when agents end again and again, with the last one's words.
fn agents_end(last_words: &[String]) -> Failure {
    let failure = Failure::new("the agent beside the target keeps ending");
    last_words.iter().fold(failure, Failure::because)
}

/// When agents died.
#[derive(Default)]
pub struct Deaths(VecDeque<Instant>);

impl Deaths {
    /// Counts a death; whether the session is to give up.
    pub fn one_too_many(&mut self) -> bool {
        let (most, within) = AGENT_DEATHS;
        self.0.push_back(Instant::now());
        while self.0.front().is_some_and(|death| death.elapsed() > within) {
            self.0.pop_front();
        }
        self.0.len() > most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_deaths_a_minute_are_borne_and_a_fourth_is_not() {
        let mut deaths = Deaths::default();
        assert!(!(0..3).any(|_| deaths.one_too_many()));
        assert!(deaths.one_too_many());
    }
}
