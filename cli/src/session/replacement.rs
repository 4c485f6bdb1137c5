//! A new agent in the place of one that has ended.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mirrord_protocol::Token;
use tokio::time::timeout;

use super::Plan;
use super::bring_up::{self, target_stopped};
use super::containers::Running;
use crate::engine::containers::Common;
use crate::engine::target::{self, Target};
use crate::engine::{Engine, clean};
use crate::failure::Failure;

/// How many agents may die in how long before the session gives up.
const AGENT_DEATHS: (usize, Duration) = (3, Duration::from_secs(60));
/// How long the engine may take to remove a container that has ended.
const REMOVAL: Duration = Duration::from_secs(2);

/// What a new agent needs.
pub struct Replacement<'a> {
    /// Whose it is.
    pub plan: &'a Plan,
    /// Where it is created.
    pub engine: &'a Engine,
    /// Whom it runs beside.
    pub target: &'a Target,
    /// The sidecar's id.
    pub sidecar: &'a str,
    /// The session's secret.
    pub token: &'a Token,
    /// Our image.
    pub image: &'a str,
}

impl Replacement<'_> {
    /// Starts another agent in the place of one that has ended. One that is being created when
    /// this is dropped may still show up.
    pub async fn of(&self, ended: String) -> Result<Running, Failure> {
        let Self { plan, engine, target, sidecar, token, image } = *self;
        let _ = timeout(REMOVAL, clean::removed(engine, &ended)).await;
        if !target::still_runs(engine, target).await {
            return Err(target_stopped(target));
        }
        let common = Common { engine, session: &plan.session, image };
        bring_up::start_agent(&common, plan, target, sidecar, token).await
    }
}

/// What is said when agents end again and again, with the last one's words.
pub fn agents_end(last_words: &[String]) -> Failure {
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
