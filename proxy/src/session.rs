//! A session's tunnels: one to the agent beside each target, each in a task of its own.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use mirrord_protocol::control::{Agents, ProxyEvent, Target, TargetIndex};
use mirrord_protocol::frame::{Description, Frame};
use mirrord_tunnel::{Pipe, Role, Socket, Tunnel};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::info;

use crate::door::{self, Arrival, Door};
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
    /// Each target's latest tunnel.
    current: HashMap<TargetIndex, Current>,
    tunnels: JoinSet<Ended>,
    described_tx: mpsc::Sender<Described>,
    described_rx: mpsc::Receiver<Described>,
    /// What stands once the app may start.
    place: Option<Place>,
    tasks: JoinSet<anyhow::Error>,
    gathered: Option<Instant>,
    generation: Generation,
    /// Of whom it was said that their tunnel broke.
    missed: BTreeSet<TargetIndex>,
}

/// Tells a target's tunnels apart.
type Generation = u64;

struct Current {
    generation: Generation,
    driver: AbortHandle,
    tunnel: Tunnel,
}

/// A target says who it is.
struct Described {
    target: TargetIndex,
    generation: Generation,
    description: Description,
}

/// A tunnel has come to its end.
struct Ended {
    target: TargetIndex,
    generation: Generation,
    reason: anyhow::Error,
}

impl Session {
    fn new(link: Rc<Link>, provision: Provision, door: Door) -> Self {
        let (described_tx, described_rx) = mpsc::channel(16);
        Self {
            link,
            provision,
            door,
            targets: Targets::default(),
            current: HashMap::new(),
            tunnels: JoinSet::new(),
            described_tx,
            described_rx,
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
            tokio::select! {
                arrival = self.door.next(self.current.is_empty()) => self.arrived(arrival?),
                Some(described) = self.described_rx.recv() => self.described(described).await?,
                Some(ended) = self.tunnels.join_next() => self.ended(ended)?,
                Some(failed) = self.tasks.join_next() => {
                    return Err(failed.unwrap_or_else(anyhow::Error::new));
                }
                () = tokio::time::sleep_until(gathered), if self.gathered.is_some() => {
                    self.gathered = None;
                    if self.place.is_none() && self.targets.are_there(0) {
                        self.begin().await?;
                    }
                }
            }
        }
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
        if let Some(old) = self.current.remove(&target) {
            old.driver.abort();
            self.down(target, "another pipe took its place");
        }
        self.generation += 1;
        let (generation, tunnel) = (self.generation, Tunnel::new(Role::Proxy));
        let peer = Peer::new(self.link.clone(), target);
        let (driven, described_tx) = (tunnel.clone(), self.described_tx.clone());
        // One agent of one place: what is known of it stays true.
        let describes = self.place.is_none() || self.awaited().is_some();
        if describes {
            tunnel.send(&Frame::Describe { env: self.wants_env(target) });
        }
        let driver = self.tunnels.spawn_local(async move {
            let reason = tokio::select! {
                end = drive(driven, socket, peer, (target, generation), described_tx) => end,
                () = door::left(bringer) => anyhow::anyhow!("who brought the pipe is gone"),
            };
            Ended { target, generation, reason }
        });
        let current = Current { generation, driver, tunnel };
        if !describes {
            self.link.up(target, &current.tunnel);
            say(&ProxyEvent::Reconnected { target });
        }
        self.current.insert(target, current);
    }

    /// The environment is a secret: it is asked for once, of the target that lends it, and not any
    /// more when the app runs already.
    fn wants_env(&self, target: TargetIndex) -> bool {
        let starts = self.place.is_none() && self.awaited() != Some(0);
        self.link.config.env && starts && target == 0
    }

    async fn described(&mut self, described: Described) -> anyhow::Result<()> {
        let Described { target, generation, description } = described;
        let Some(current) = self.current.get(&target).filter(|now| now.generation == generation)
        else {
            return Ok(());
        };
        self.targets.found(target, description);
        for gone in self.targets.forget(std::time::Instant::now()) {
            self.link.forget(gone);
        }
        if let Some(place) = &self.place {
            if let Err(error) = place.change(&self.link.config, &self.targets.descriptions()) {
                let message = format!("the target has moved and could not be followed: {error:#}");
                say(&ProxyEvent::Warning { message });
            }
            self.link.up(target, &current.tunnel);
        }
        // Of one that is new to a running app the CLI hears in the same words.
        if self.missed.remove(&target) || self.place.is_some() {
            say(&ProxyEvent::Reconnected { target });
        }
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
        let Ended { target, generation, reason } = ended;
        if self.current.get(&target).is_none_or(|now| now.generation != generation) {
            return Ok(());
        }
        self.current.remove(&target);
        if self.place.is_none() && self.awaited().is_none() {
            return Err(reason).context("asking who the target is");
        }
        self.down(target, &format!("{reason:#}"));
        Ok(())
    }

    fn down(&mut self, target: TargetIndex, reason: &str) {
        self.link.down(target);
        self.targets.lost(target, std::time::Instant::now());
        self.missed.insert(target);
        info!(target_index = target, reason, "tunnel down");
        say(&ProxyEvent::Disconnected { target, reason: reason.to_owned() });
    }
}

/// Carries a tunnel to its end, and passes on who the target says that it is.
async fn drive(
    tunnel: Tunnel,
    socket: Socket<Pipe>,
    peer: Peer,
    (target, generation): (TargetIndex, Generation),
    described_tx: mpsc::Sender<Described>,
) -> anyhow::Error {
    let driving = tunnel.drive(socket, &peer);
    tokio::pin!(driving);
    let describing = async {
        loop {
            let description = peer.description().await;
            let described = Described { target, generation, description };
            if described_tx.send(described).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        end = &mut driving => anyhow::Error::new(end),
        () = describing => anyhow::anyhow!("the session is over"),
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
