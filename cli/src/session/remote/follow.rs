//! Pods come and go under a running session: who stands at which post.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::post::{self, Assignment};
use super::{Context, Place};
use crate::cluster::target::{Pods, Standing, TargetPod, Why, Workload, watch_pods};
use crate::failure::Failure;
use crate::session::events::Event;
use crate::target::Kind;

/// How long a session waits for a pod in the place of the last one.
const EMPTY: Duration = Duration::from_secs(60);

/// Assigns pods to posts as long as it runs.
pub struct Follow {
    /// What the session's tasks share.
    pub context: Context,
    /// Whose pods.
    pub workload: Workload,
    /// Who stands where at first.
    pub posts: Vec<Assignment>,
    /// Whether every ready pod gets a post.
    pub all: bool,
}

/// What is to be done about one post.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Another pod takes it.
    Assign(usize, Box<TargetPod>),
    /// Its container was started anew: the next pipe leads there.
    Remember(usize, Box<TargetPod>),
    /// Nobody stands there any more.
    Vacate(usize),
    /// One more.
    Open(Box<TargetPod>),
}

impl Follow {
    /// Follows until the session ends.
    pub async fn run(mut self) {
        let agents = self.context.agents.clone();
        let workload = self.workload.clone();
        let mut changes = watch_pods(&agents.cluster, &workload);
        let mut tasks = JoinSet::new();
        let mut empty_since: Option<Instant> = None;
        loop {
            let deadline = empty_since.map(|since| since + EMPTY);
            tokio::select! {
                pods = changes.next() => match pods {
                    Some(Ok(pods)) => self.turn(&pods, &mut tasks).await,
                    // The API server is away: what pods do then shows when it is back.
                    Some(Err(_)) => {}
                    None => return,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return self.context.lost(self.deserted()).await;
                }
            }
            let empty = self.posts.iter().all(|post| post.borrow().is_none());
            empty_since = empty.then(|| empty_since.unwrap_or_else(Instant::now));
            if empty && self.workload.target.kind == Kind::Pod {
                return self.context.lost(self.deserted()).await;
            }
        }
    }

    fn deserted(&self) -> Failure {
        let target = &self.workload.target;
        match target.kind {
            Kind::Pod => Failure::new(format!("the target {target} is gone")),
            _ => Failure::new(format!(
                "the target {target} has had no ready pod for {} s",
                EMPTY.as_secs()
            )),
        }
        .hint("run the command again once the target is back")
    }

    async fn turn(&mut self, pods: &Pods, tasks: &mut JoinSet<()>) {
        let standing: Vec<Option<TargetPod>> = self.posts.iter().map(standing).collect();
        for change in changes(&standing, pods, self.all) {
            match change {
                Change::Assign(index, pod) => {
                    let from = standing[index].as_ref().map(|pod| pod.pod.clone());
                    self.context.say(Event::Moved { from, to: Some(pod.pod.clone()) }).await;
                    self.posts[index].send_replace(Some(Place::Beside(pod)));
                }
                Change::Remember(index, pod) => {
                    self.posts[index].send_if_modified(|post| {
                        *post = Some(Place::Beside(pod));
                        false
                    });
                }
                Change::Vacate(index) => {
                    let from = standing[index].as_ref().map(|pod| pod.pod.clone());
                    self.context.say(Event::Moved { from, to: None }).await;
                    self.posts[index].send_replace(None);
                }
                Change::Open(pod) => {
                    let to = Some(pod.pod.clone());
                    self.context.say(Event::Moved { from: None, to }).await;
                    self.posts.push(post::open(&self.context, tasks, Place::Beside(pod)));
                }
            }
        }
    }
}

fn standing(post: &Assignment) -> Option<TargetPod> {
    match &*post.borrow() {
        Some(Place::Beside(pod)) => Some((**pod).clone()),
        _ => None,
    }
}

fn changes(posts: &[Option<TargetPod>], pods: &Pods, all: bool) -> Vec<Change> {
    // Its probes may fail because of the app here, and its container may be started anew.
    let stays = |pod: &&TargetPod| match pods.standing(&pod.uid) {
        Standing::Ready(_) => true,
        Standing::Other(why) => matches!(why, Why::NotReady { .. } | Why::NotRunning(_)),
        Standing::Gone => false,
    };
    let staying: HashSet<&str> =
        posts.iter().flatten().filter(stays).map(|pod| pod.uid.as_str()).collect();
    let mut free = pods.ready.iter().filter(|pod| !staying.contains(pod.uid.as_str()));
    let mut changes = Vec::new();
    for (index, post) in posts.iter().enumerate() {
        match post.as_ref().filter(stays) {
            Some(pod) => {
                let now = pods.ready.iter().find(|now| now.uid == pod.uid);
                let again = now.filter(|now| now.container_id != pod.container_id);
                changes.extend(again.map(|now| Change::Remember(index, Box::new(now.clone()))));
            }
            None => match free.next() {
                Some(pod) => changes.push(Change::Assign(index, Box::new(pod.clone()))),
                None if post.is_some() => changes.push(Change::Vacate(index)),
                None => {}
            },
        }
    }
    if all {
        changes.extend(free.map(|pod| Change::Open(Box::new(pod.clone()))));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::target::OtherPod;

    fn pod(name: &str) -> TargetPod {
        TargetPod {
            namespace: "shop".to_owned(),
            pod: name.to_owned(),
            uid: format!("uid-{name}"),
            node: "node".to_owned(),
            container: "app".to_owned(),
            container_id: format!("{name}-1"),
            image: "image".to_owned(),
            hostname: name.to_owned(),
            ..TargetPod::default()
        }
    }

    fn turn(
        posts: &[Option<TargetPod>],
        ready: &[TargetPod],
        unready: &[&str],
        all: bool,
    ) -> Vec<Change> {
        let others = unready.iter().map(|name| OtherPod {
            pod: (*name).to_owned(),
            uid: format!("uid-{name}"),
            why: Why::NotReady { reason: "probe".to_owned(), pod: Box::new(pod(name)) },
        });
        changes(posts, &Pods { ready: ready.to_vec(), others: others.collect() }, all)
    }

    #[test]
    fn a_pod_that_goes_is_replaced_by_a_ready_one() {
        let moved = turn(&[Some(pod("a"))], &[pod("b")], &[], false);
        assert_eq!(moved, [Change::Assign(0, Box::new(pod("b")))]);
        assert_eq!(turn(&[Some(pod("a"))], &[], &[], false), [Change::Vacate(0)]);
        assert_eq!(turn(&[None], &[], &[], false), []);
        assert_eq!(turn(&[None], &[pod("b")], &[], false), [Change::Assign(0, Box::new(pod("b")))]);
    }

    #[test]
    fn a_pod_that_is_unready_for_a_while_keeps_its_post() {
        assert_eq!(turn(&[Some(pod("a"))], &[pod("b")], &["a"], false), []);
    }

    #[test]
    fn a_container_that_was_started_anew_is_remembered() {
        let again = TargetPod { container_id: "a-2".to_owned(), ..pod("a") };
        let changes = turn(&[Some(pod("a"))], std::slice::from_ref(&again), &[], false);
        assert_eq!(changes, [Change::Remember(0, Box::new(again.clone()))]);
    }

    #[test]
    fn every_ready_pod_gets_a_post_if_all_are_wanted() {
        let ready = [pod("a"), pod("b"), pod("c")];
        let posts = [Some(pod("a")), Some(pod("gone"))];
        assert_eq!(
            turn(&posts, &ready, &[], true),
            [Change::Assign(1, Box::new(pod("b"))), Change::Open(Box::new(pod("c")))]
        );
        assert_eq!(turn(&posts[..1], &ready, &[], false), []);
    }
}
