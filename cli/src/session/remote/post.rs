//! One target's pipe: from the proxy through the keeper and the API server to the agent. When it breaks, another one is made.

use std::time::{Duration, Instant};

use mirrord_protocol::control::TargetIndex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Context;
use super::agents::{NoAgent, Staffed};
use crate::cluster::agent::{Place, Site};
use crate::cluster::forward::Forward;
use crate::failure::Failure;
use crate::session::carry::carry;
use crate::session::door::Door;
use crate::session::events::Event;

/// Between attempts to make a pipe.
const RETRY: Duration = Duration::from_millis(200);

/// Who stands at a post; nobody for a while when a pod goes.
pub type Assignment = watch::Sender<Option<Place>>;

/// Opens a post and leads pipes to whoever stands there.
pub fn open(context: &Context, tasks: &mut JoinSet<()>, at: Place) -> Assignment {
    let (assign, assigned) = watch::channel(Some(at));
    let index = context.agents.new_post();
    let guard = Guard { index, context: context.clone(), assigned };
    tasks.spawn(guard.run());
    assign
}

/// Leads pipes to one post.
pub struct Guard {
    index: TargetIndex,
    context: Context,
    assigned: watch::Receiver<Option<Place>>,
}

impl Guard {
    /// Does so until the post is closed.
    pub async fn run(mut self) {
        let mut door = self.context.door.clone();
        let Ok(Some(door)) = door.wait_for(Option::is_some).await.map(|door| door.clone()) else {
            return;
        };
        let mut troubled: Option<Instant> = None;
        loop {
            let Ok(post) = self.assigned.wait_for(Option::is_some).await.map(|post| post.clone())
            else {
                return;
            };
            let Some(post) = post else { continue };
            let mut assigned = self.assigned.clone();
            assigned.mark_unchanged();
            let led = tokio::select! {
                led = self.lead(&door, &post) => led,
                changed = assigned.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            match led {
                Ok(()) => troubled = None,
                Err(Trouble::Fatal(failure)) => return self.context.lost(failure).await,
                Err(Trouble::Passing(reason)) => {
                    let since = *troubled.get_or_insert_with(Instant::now);
                    let grace = self.context.agents.grace();
                    if since.elapsed() > grace {
                        return self.context.lost(gone(grace, reason)).await;
                    }
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Makes a pipe and carries bytes until it breaks.
    async fn lead(&self, door: &Door, post: &Place) -> Result<(), Trouble> {
        let agents = &self.context.agents;
        let Staffed { site, again, .. } = agents.site(post).await?;
        if again {
            self.context.say(Event::AgentRestarted { reason: None }).await;
        }
        let opened = Forward::open(&agents.cluster.client, &site.namespace, &site.pod, site.port);
        let forward = match opened.await {
            Ok(forward) => forward,
            Err(error) => return Err(self.doubt(&site, error.to_string()).await),
        };
        let container = match post {
            Place::Beside(target) => Some(target.container_id.as_str()),
            Place::Alone { .. } => None,
        };
        let pipe = door.open(self.index, container).await.map_err(Trouble::Fatal)?;
        let began = Instant::now();
        let end = carry(forward, pipe).await;
        let brief = began.elapsed() < RETRY;
        match end {
            Err(error) if brief => Err(self.doubt(&site, error.to_string()).await),
            Ok(()) if brief => Err(self.doubt(&site, "the pipe ended at once".to_owned()).await),
            _ => match self.doubt(&site, String::new()).await {
                fatal @ Trouble::Fatal(_) => Err(fatal),
                Trouble::Passing(_) => Ok(()),
            },
        }
    }

    /// Looks whether the agent is there at all; if not, the next attempt starts another.
    async fn doubt(&self, site: &Site, reason: String) -> Trouble {
        match self.context.agents.is_gone(site).await {
            false => Trouble::Passing(reason),
            true => match self.context.agents.ended(site).await {
                Ok(()) => Trouble::Passing("the agent ended".to_owned()),
                Err(failure) => Trouble::Fatal(failure),
            },
        }
    }
}

/// Why there is no pipe.
enum Trouble {
    /// It may come back.
    Passing(String),
    /// It will not.
    Fatal(Failure),
}

impl From<NoAgent> for Trouble {
    fn from(error: NoAgent) -> Self {
        match error {
            NoAgent::Lasting(failure) => Self::Fatal(failure),
            NoAgent::Passing(failure) => {
                let said = [&failure.sentence].into_iter().chain(&failure.causes);
                Self::Passing(said.cloned().collect::<Vec<_>>().join(": "))
            }
        }
    }
}

fn gone(grace: Duration, reason: String) -> Failure {
    let text = format!("the cluster could not be reached again for {} s", grace.as_secs());
    let failure = Failure::new(text).hint(
        "see 'kubectl get pods'; agent.communication_timeout in the configuration file allows for \
         longer cuts",
    );
    if reason.is_empty() { failure } else { failure.because(reason) }
}
