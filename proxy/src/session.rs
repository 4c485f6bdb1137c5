//! A session's tunnels: one to the agent beside each target, over one pipe after another, each of
//! which is driven by a task of its own.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use mirrord_protocol::control::{Agents, ProxyEvent, Target, TargetIndex};
use mirrord_protocol::frame::{Description, Frame};
use mirrord_tunnel::Tunnel;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::info;

use crate::door::{Arrival, Door};
use crate::drive::{Arrived, Current, Drive, End, Ended, Generation, News, What};
use crate::layer::Provision;
use crate::link::Link;
use crate::peer::Peer;
use crate::place::Place;
use crate::report::say;
use crate::targets::Targets;

/// Where it does not matter who comes first, others have so long to come with the first one.
const GATHERING: Duration = Duration::from_millis(300);

/// Serves until something fails that no new tunnel can mend.
pub(crate) async fn serve(link: Rc<Link>, provision: Provision) -> anyhow::Result<()> {
    let door = Door::open(&link.config)?;
    Session::new(link, provision, door).serve().await
}

struct Session {
    link: Rc<Link>,
    provision: Provision,
    door: Door,
    targets: Targets,
    /// Each target's tunnel.
    current: HashMap<TargetIndex, Current>,
    pipes: JoinSet<Ended>,
    news_tx: mpsc::Sender<News>,
    news_rx: mpsc::Receiver<News>,
    /// What stands once the app may start.
    place: Option<Place>,
    tasks: JoinSet<anyhow::Error>,
    gathered: Option<Instant>,
    generation: Generation,
    /// Of whom it was said that their tunnel broke.
    missed: BTreeSet<TargetIndex>,
}

impl Session {
    fn new(link: Rc<Link>, provision: Provision, door: Door) -> Self {
        let (news_tx, news_rx) = mpsc::channel(16);
        Self {
            link,
            provision,
            door,
            targets: Targets::default(),
            current: HashMap::new(),
            pipes: JoinSet::new(),
            news_tx,
            news_rx,
            place: None,
            tasks: JoinSet::new(),
            gathered: None,
            generation: 0,
            missed: BTreeSet::new(),
        }
    }

    async fn serve(&mut self) -> anyhow::Result<()> {
        loop {
            let gathered = self.gathered.unwrap_or_else(Instant::now);
            let given_up = self.given_up();
            tokio::select! {
                arrival = self.door.next(self.pipes.is_empty()) => self.arrived(arrival?),
                Some(news) = self.news_rx.recv() => self.hear(news).await?,
                Some(ended) = self.pipes.join_next() => self.ended(ended)?,
                Some(failed) = self.tasks.join_next() => {
                    return Err(failed.unwrap_or_else(anyhow::Error::new));
                }
                () = tokio::time::sleep_until(gathered), if self.gathered.is_some() => {
                    self.gathered = None;
                    if self.place.is_none() && self.targets.are_there(0) {
                        self.begin().await?;
                    }
                }
                () = tokio::time::sleep_until(given_up.0), if given_up.1.is_some() => {
                    given_up.1.into_iter().for_each(|target| self.lose(target));
                }
            }
        }
    }

    /// Whose tunnel has waited long enough for another pipe, and when it has.
    fn given_up(&self) -> (Instant, Option<TargetIndex>) {
        let grace = Duration::from_secs(self.link.config.grace);
        let cut = self.current.iter().filter_map(|(target, now)| Some((now.cut?, *target))).min();
        cut.map_or((Instant::now(), None), |(at, target)| (at + grace, Some(target)))
    }

    /// How many targets the app waits for; none where agents are reached by their one socket.
    fn awaited(&self) -> Option<u16> {
        match self.link.config.agents {
            Agents::Socket => None,
            Agents::Handed(count) => Some(count),
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        let Arrival { target, result, bringer } = arrival;
        let socket = match result {
            Ok(socket) => socket,
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::new(error));
                info!(target_index = target, reason, "no tunnel");
                return say(&ProxyEvent::Refused { target, reason });
            }
        };
        if self.generation == 0 {
            say(&ProxyEvent::Connected);
        }
        self.lead(target, Arrived { socket, bringer });
    }

    /// Leads a target's tunnel over this pipe: the one that it has, or a new one.
    fn lead(&mut self, target: TargetIndex, pipe: Arrived) {
        self.generation += 1;
        let generation = self.generation;
        let (tunnel, peer, before, cut) = match self.current.remove(&target) {
            Some(old) => {
                old.driver.abort();
                if old.cut.is_none() {
                    self.cut(target, "another pipe took its place");
                }
                let cut = old.cut.unwrap_or_else(Instant::now);
                (old.tunnel, old.peer, Some(old.driver), Some(cut))
            }
            None => (Tunnel::of_proxy(), Rc::new(Peer::new(self.link.clone(), target)), None, None),
        };
        let drive = Drive {
            target,
            generation,
            tunnel: tunnel.clone(),
            peer: peer.clone(),
            news_tx: self.news_tx.clone(),
            before,
        };
        if cut.is_none() {
            self.ask(target, &tunnel);
        }
        let driver = self.pipes.spawn_local(drive.run(pipe));
        self.current.insert(target, Current { generation, driver, tunnel, peer, cut });
    }

    /// Asks through a new tunnel who the target is.
    fn ask(&mut self, target: TargetIndex, tunnel: &Tunnel) {
        // One agent of one place: what is known of it stays true.
        if self.place.is_some() && self.awaited().is_none() {
            self.link.up(target, tunnel);
            let kept = !self.missed.remove(&target);
            return say(&ProxyEvent::Reconnected { target, kept });
        }
        tunnel.send(&Frame::Describe { env: self.wants_env(target) });
    }

    /// The environment is a secret: it is asked for once, of the target that lends it, and not any
    /// more when the app runs already.
    fn wants_env(&self, target: TargetIndex) -> bool {
        let starts = self.place.is_none() && self.awaited() != Some(0);
        self.link.config.env && starts && target == 0
    }

    async fn hear(&mut self, news: News) -> anyhow::Result<()> {
        let News { target, generation, what } = news;
        let current = self.current.get_mut(&target).filter(|now| now.generation == generation);
        let Some(current) = current else { return Ok(()) };
        match what {
            What::Resumed => {
                current.cut = None;
                if self.place.is_some() && !self.link.knows(target) && self.targets.is_known(target)
                {
                    self.link.up(target, &current.tunnel);
                }
                self.link.set_live(target, true);
                self.targets.back(target);
                self.missed.remove(&target);
                info!(target_index = target, "tunnel resumed");
                say(&ProxyEvent::Reconnected { target, kept: true });
                self.begin_if_all_are_there().await
            }
            What::Described(description) => {
                let tunnel = current.tunnel.clone();
                self.described(target, &tunnel, description).await
            }
        }
    }

    async fn described(
        &mut self,
        target: TargetIndex,
        tunnel: &Tunnel,
        description: Description,
    ) -> anyhow::Result<()> {
        self.targets.found(target, description);
        for gone in self.targets.forget(std::time::Instant::now()) {
            self.link.forget(gone);
        }
        if let Some(place) = &self.place {
            if let Err(error) = place.change(&self.link.config, &self.targets.descriptions()) {
                let message = format!("the target has moved and could not be followed: {error:#}");
                say(&ProxyEvent::Warning { message });
            }
            self.link.up(target, tunnel);
        }
        // Of one that is new to a running app the CLI hears in the same words.
        let missed = self.missed.remove(&target);
        if missed || self.place.is_some() {
            say(&ProxyEvent::Reconnected { target, kept: !missed });
        }
        self.begin_if_all_are_there().await
    }

    async fn begin_if_all_are_there(&mut self) -> anyhow::Result<()> {
        match self.awaited().unwrap_or(1) {
            _ if self.place.is_some() => {}
            0 => {
                self.gathered.get_or_insert_with(|| Instant::now() + GATHERING);
            }
            awaited if self.targets.are_there(awaited) => self.begin().await?,
            _ => {}
        }
        Ok(())
    }

    /// All whom the app waits for are there: it may start.
    async fn begin(&mut self) -> anyhow::Result<()> {
        let descriptions = self.targets.descriptions();
        let place =
            Place::take(&self.link, &descriptions, &self.provision, &mut self.tasks).await?;
        let ready = descriptions.first().map(|description| target(description));
        self.place = Some(place);
        if let Some(ready) = ready {
            say(&ProxyEvent::Ready(ready));
        }
        for (target, current) in &self.current {
            if self.targets.is_there(*target) {
                self.link.up(*target, &current.tunnel);
            }
        }
        Ok(())
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) -> anyhow::Result<()> {
        let ended = match ended {
            Ok(ended) => ended,
            // Another one took its place.
            Err(error) if error.is_cancelled() => return Ok(()),
            Err(error) => return Err(error).context("driving a tunnel"),
        };
        let Ended { target, generation, end } = ended;
        let only_one = self.awaited().is_none();
        let current = self.current.get_mut(&target).filter(|now| now.generation == generation);
        let Some(current) = current.filter(|_| !self.link.is_leaving()) else { return Ok(()) };
        let waiting = current.cut.is_some();
        let asking = self.place.is_none() && only_one;
        match end {
            End::Cut(reason) if asking => {
                return Err(anyhow::anyhow!(reason)).context("asking who the target is");
            }
            End::Over(reason) if asking => {
                return Err(reason).context("asking who the target is");
            }
            End::Cut(reason) => {
                current.cut.get_or_insert_with(Instant::now);
                if !waiting {
                    self.cut(target, &reason);
                }
            }
            End::Over(reason) => {
                if !waiting {
                    self.cut(target, &format!("{reason:#}"));
                }
                self.lose(target);
            }
            End::Forgotten(pipe) => {
                self.lose(target);
                self.lead(target, *pipe);
            }
        }
        Ok(())
    }

    /// A target's tunnel has no pipe any more.
    fn cut(&mut self, target: TargetIndex, reason: &str) {
        self.link.set_live(target, false);
        self.targets.lost(target, std::time::Instant::now());
        self.missed.insert(target);
        info!(target_index = target, reason, "tunnel down");
        say(&ProxyEvent::Disconnected { target, reason: reason.to_owned() });
    }

    /// A target's tunnel is not waited for any more: its connections are reset.
    fn lose(&mut self, target: TargetIndex) {
        if let Some(lost) = self.current.remove(&target) {
            lost.driver.abort();
            lost.tunnel.end();
        }
        self.link.down(target);
    }
}

fn target(description: &Description) -> Target {
    let (mut env, mut env_skipped) = (Vec::new(), Vec::new());
    for entry in description.environ.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let equals = entry.iter().position(|byte| *byte == b'=').unwrap_or(entry.len());
        let (name, value) = (&entry[..equals], entry.get(equals + 1..));
        let name = String::from_utf8_lossy(name).into_owned();
        match value.map(|value| std::str::from_utf8(value)) {
            Some(Ok(value)) => env.push((name, value.to_owned())),
            Some(Err(_)) => env_skipped.push(name),
            None => {}
        }
    }
    Target {
        hostname: description.hostname.clone(),
        addresses: description.addresses.iter().map(|(ip, _)| *ip).collect(),
        env,
        env_skipped,
    }
}
