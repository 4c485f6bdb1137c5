//! From a plan to a session that is ready for the app.
//!
//! ```text
//!   target ─► create sidecar ─┬─► start sidecar ────────────────┬─► tunnel ─► network
//!             (image, if new) └─► create agent ─► start agent ──┘
//! ```
//!
//! A target in a cluster is looked for there, and its agents are made there, while the sidecar is.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use bollard::query_parameters::InspectNetworkOptions;
use mirrord_protocol::Token;
use mirrord_protocol::control::{Agents, ProxyEvent, Target as Described};
use tokio::sync::watch;
use tokio::time::timeout;

use super::beside::{Beside, With, target_stopped};
use super::containers::{ProxySaid, Running, Said};
use super::events::{Event, Reporter, Step, millis};
use super::far::{Far, FarSaid};
use super::here::Folder;
use super::plan::Learned;
use super::remote::Found;
use super::{Plan, id};
use crate::engine::attached::Attached;
use crate::engine::containers::{Common, Names, Role};
use crate::engine::target::{self, Target, TargetError};
use crate::engine::{Engine, image};
use crate::failure::Failure;

/// How long proxy and agent may take to stand once they run.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an engine may take to answer for the first time.
const ENGINE_PATIENCE: Duration = Duration::from_secs(10);

/// How many pipes may lead to nobody.
const REFUSALS: usize = 5;

/// Words of a kernel or an engine that refuses.
const RIGHTS: &[&str] = &["Operation not permitted", "os error 1)", "EPERM", "Invalid argument"];

/// A session that is ready for the app.
pub struct Session {
    /// Where containers of it are, if there are any.
    pub engine: Option<Engine>,
    /// The proxy; its id is the sidecar's, if it has one.
    pub proxy: Running,
    /// The folder of a session on this machine.
    pub folder: Option<Folder>,
    /// The target and its agents.
    pub far: Far,
    /// What the target says of itself, once it is ready.
    pub described: Option<Described>,
}

/// The way there.
pub struct BringUp<'a> {
    /// What is asked for.
    pub plan: &'a Plan,
    /// Who hears of it.
    pub reporter: &'a Reporter,
    /// Becomes true when something may be in the engine.
    pub begun: &'a Cell<bool>,
    /// Becomes true when the kernel or the engine does not let the kernel redirect.
    pub no_netns: &'a Cell<bool>,
    /// What the app's image has loaded into its programs, once that is known.
    pub preloaded: RefCell<Option<String>>,
    /// Why there is no tunnel yet, as the proxy says.
    pub refusals: Vec<String>,
    /// Becomes true when nobody wants it any more. It then ends at the next point where nothing
    /// is half made: a request that is dropped may still be carried out.
    pub unwanted: watch::Receiver<bool>,
}

impl BringUp<'_> {
    /// Goes it.
    pub async fn run(mut self) -> Result<Session, Failure> {
        let token = id::token().map_err(|error| Failure::caused_by("no randomness", &error))?;
        let mut session = match self.plan.is_remote() {
            true => self.with_cluster(&token).await?,
            false => self.with_container(&token).await?,
        };
        let described = match self.until_ready(&mut session).await {
            Ok(described) => described,
            Err(failure) => {
                session.far.leave().await;
                return Err(failure);
            }
        };
        if let Far::Beside(beside) = &mut session.far {
            beside.ready();
        }
        session.described = Some(described.clone());
        self.reporter.say(&Event::Ready {
            sidecar: self.plan.plane.here().is_none().then(|| session.proxy.id.clone()),
            name: session.far.target().to_owned(),
            target: described,
            pinned: session.far.pinned(),
            preloaded: self.preloaded.take(),
        });
        Ok(session)
    }

    /// The target is a container of an engine.
    async fn with_container(&mut self, token: &Token) -> Result<Session, Failure> {
        let began = Instant::now();
        let (engine, target) = self.unless_unwanted(self.find_target()).await??;
        self.step(Step::Target, began);
        let mut learned = self.learn(&engine).await?;
        learned.address = target.address.clone();
        let names = self.names(target.hostname.clone(), target.domainname.clone());
        let image = image::tag()?;
        self.begun.set(true);
        let (place, remaps_users) = tokio::join!(
            self.make_place(Some(&engine), &names, &learned),
            // The question takes an engine longer than to create a container.
            async { !target.users_are_own && engine.remaps_users().await },
        );
        let place = place?;
        let remaps_users = remaps_users || self.plan.app_userns.is_some();
        self.go_on()?;
        let with = With {
            plan: self.plan.clone(),
            engine: engine.clone(),
            target,
            door: place.door(),
            volume: place.volume().filter(|_| !remaps_users),
            remaps_users,
            token: token.clone(),
            image: image.clone(),
        };
        let created = Instant::now();
        let agents = match with.volume {
            Some(_) => Agents::Socket,
            None => Agents::Handed(1),
        };
        let common = self.plan.common(&engine, &image);
        let config = self.plan.proxy_config(token, agents, &learned);
        // Both to their ends, even if one fails: what is half made could show up after all is clean.
        let (proxy, agent) = tokio::join!(self.start_proxy(&place, &config, created), async {
            let id = self.with_image(&common, async || with.create_agent().await).await?;
            let running = with.start_created(id).await?;
            self.step(Step::Agent, created);
            Ok::<_, Failure>(running)
        });
        let proxy = proxy?;
        let agent = match agent {
            Err(_) if !target::still_runs(&engine, &with.target).await => {
                return Err(target_stopped(&engine, &with.target).await);
            }
            agent => agent?,
        };
        let far = Far::Beside(Box::new(Beside::new(with, agent)));
        Ok(Session {
            engine: Some(engine),
            proxy,
            folder: place.into_folder(),
            far,
            described: None,
        })
    }

    /// The target is in a cluster.
    async fn with_cluster(&mut self, token: &Token) -> Result<Session, Failure> {
        let began = Instant::now();
        let both = async { tokio::join!(self.find_engine(), Found::find(self.plan)) };
        let (engine, found) = self.unless_unwanted(both).await?;
        let (engine, found) = (engine?, found?);
        self.step(Step::Target, began);
        let mut learned = match &engine {
            Some(engine) => self.learn(engine).await?,
            None => Learned::default(),
        };
        let (host, address) = found.identity();
        learned.address = address;
        let names = self.names(host, None);
        let config = self.plan.proxy_config(token, Agents::Handed(found.count()), &learned);
        self.begun.set(true);
        let (door_tx, door_rx) = watch::channel(None);
        let both = async {
            tokio::join!(
                async {
                    let place = self.make_place(engine.as_ref(), &names, &learned).await?;
                    let proxy = self.start_proxy(&place, &config, Instant::now()).await?;
                    door_tx.send_replace(Some(place.door()));
                    Ok::<_, Failure>((proxy, place.into_folder()))
                },
                found.start(self.plan, token, door_rx, self.reporter),
            )
        };
        let mut unwanted = self.unwanted.clone();
        let (made, remote) = tokio::select! {
            both = both => both,
            // What is half made then is swept as a late arrival.
            _ = unwanted.wait_for(|unwanted| *unwanted) => return Err(Failure::new("interrupted")),
        };
        match (made, remote) {
            (Ok((proxy, folder)), Ok(remote)) => {
                let far = Far::Remote(Box::new(remote));
                Ok(Session { engine, proxy, folder, far, described: None })
            }
            (Err(failure), Ok(mut remote)) => {
                remote.leave().await;
                Err(failure)
            }
            (_, Err(failure)) => Err(failure),
        }
    }

    /// What is only looked at need not be looked at to its end.
    async fn unless_unwanted<T>(&self, look: impl Future<Output = T>) -> Result<T, Failure> {
        let mut unwanted = self.unwanted.clone();
        tokio::select! {
            seen = look => Ok(seen),
            _ = unwanted.wait_for(|unwanted| *unwanted) => Err(Failure::new("interrupted")),
        }
    }

    /// Ends it if nobody wants it any more.
    pub fn go_on(&self) -> Result<(), Failure> {
        match *self.unwanted.borrow() {
            true => Err(Failure::new("interrupted")),
            false => Ok(()),
        }
    }

    /// Says that a step is done.
    pub fn step(&self, step: Step, began: Instant) {
        let took = millis(began.elapsed());
        self.reporter.say(&Event::Step { step, took });
    }

    /// Finds the target, and with it the version that the engine speaks.
    async fn find_target(&self) -> Result<(Engine, Target), Failure> {
        let engine =
            self.plan.engine()?.ok_or_else(|| Failure::new("a container needs an engine"))?;
        let name = self.plan.container();
        let found = timeout(ENGINE_PATIENCE, target::find(&engine, name)).await;
        match found.unwrap_or_else(|_| Err(engine.silent().into())) {
            Ok(target) => Ok((engine, target)),
            Err(TargetError::Engine(error)) => {
                let Some(engine) = engine.with_version_of(&error) else {
                    return Err(error.into());
                };
                let target = target::find(&engine, name).await?;
                Ok((engine, target))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The engine, if one is needed: it answers, and the version that it speaks.
    async fn find_engine(&self) -> Result<Option<Engine>, Failure> {
        let Some(engine) = self.plan.engine()? else { return Ok(None) };
        let answer = timeout(ENGINE_PATIENCE, engine.answer()).await;
        match answer.unwrap_or_else(|_| Err(engine.silent())) {
            Ok(()) => Ok(Some(engine)),
            Err(error) => engine.with_version_of(&error).map(Some).ok_or_else(|| error.into()),
        }
    }

    fn names(&self, host: String, domain: Option<String>) -> Names {
        let wanted = self.plan.hostname;
        Names { host: wanted.then_some(host), domain: domain.filter(|_| wanted) }
    }

    async fn learn(&self, engine: &Engine) -> Result<Learned, Failure> {
        let gateway = match self.plan.wants_gateway() {
            true => self.gateway(engine).await,
            false => None,
        };
        let image_ports = self.image_ports(engine).await?;
        let mut links = Vec::new();
        for (name, alias) in self.plan.rehomed.hosts_by_link() {
            // One that is not there is the engine's to refuse.
            links.extend(target::link(engine, name, alias).await);
        }
        Ok(Learned { image_ports, gateway, address: None, links })
    }

    /// This machine's address on docker's own network.
    async fn gateway(&self, engine: &Engine) -> Option<String> {
        let bridge = engine.api().inspect_network("bridge", None::<InspectNetworkOptions>).await;
        bridge.ok()?.ipam?.config?.into_iter().find_map(|config| config.gateway)
    }

    /// The ports that the app's image exposes, if all are to be published.
    async fn image_ports(&self, engine: &Engine) -> Result<Vec<String>, Failure> {
        if !self.plan.rehomed.publish_all {
            return Ok(Vec::new());
        }
        let name = &self.plan.app_image;
        let found = engine.api().inspect_image(name).await.map_err(|error| {
            let error =
                engine.explain(&format!("cannot look at the ports of the image {name}"), error);
            Failure::from(error).hint(format!("-P needs the image to be here: docker pull {name}"))
        })?;
        Ok(found.config.and_then(|config| config.exposed_ports).unwrap_or_default())
    }

    async fn until_ready(&mut self, session: &mut Session) -> Result<Described, Failure> {
        let began = Instant::now();
        let mut late = std::pin::pin!(tokio::time::sleep(PATIENCE));
        loop {
            let Session { proxy, far, .. } = session;
            tokio::select! {
                said = proxy.next() => if let Some(described) = self.heard_proxy(proxy, said, began)? {
                    return Ok(described);
                },
                said = far.next() => match said {
                    FarSaid::Event(event) => self.reporter.say(&event),
                    FarSaid::Lost(failure) => return Err(failure),
                },
                () = &mut late => {
                    let failure = Failure::new("the tunnel to the target did not come up in 30 s");
                    let failure = self.refusals.iter().fold(failure, Failure::because);
                    return Err(with_words(failure, session));
                }
                _ = self.unwanted.changed() => self.go_on()?,
            }
        }
    }

    /// Whether a failure of the sidecar's is that the kernel may not redirect.
    pub fn doubt_plane(&self, failure: &Failure) {
        self.no_netns.set(self.plan.plane.is_netns() && is_about_rights(failure));
    }

    fn heard_proxy(
        &mut self,
        proxy: &Running,
        said: ProxySaid,
        began: Instant,
    ) -> Result<Option<Described>, Failure> {
        match said {
            Said::Event(ProxyEvent::Connected) => self.step(Step::Tunnel, began),
            Said::Event(ProxyEvent::Ready(described)) => {
                self.step(Step::Network, began);
                return Ok(Some(described));
            }
            Said::Event(ProxyEvent::Failed { causes }) => {
                let failure = part_failed(causes);
                self.doubt_plane(&failure);
                return Err(failure);
            }
            // An agent that has only just begun to listen may miss the first pipe.
            Said::Event(ProxyEvent::Refused { reason, .. }) if self.refusals.len() < REFUSALS => {
                self.refusals.push(reason);
            }
            Said::Event(ProxyEvent::Refused { reason, .. }) => {
                return Err(Failure::new("there is no tunnel to the target").because(reason));
            }
            Said::Event(said) => self.pass_on(said),
            Said::Log(line) => self.reporter.log(Role::Proxy, line),
            Said::Ended => {
                let failure = Failure::new("the sidecar ended before it was ready");
                return Err(proxy.last_words().iter().fold(failure, Failure::because));
            }
        }
        Ok(None)
    }
}

/// The proxy's or the agent's own words for why it can't go on.
pub fn part_failed(causes: Vec<String>) -> Failure {
    let mut causes = causes.into_iter();
    let first = causes.next().unwrap_or_else(|| "the session failed".to_owned());
    let failure = causes.fold(Failure::new(first), Failure::because);
    match is_about_rights(&failure) {
        true => failure.hint(
            "the engine must allow a container NET_ADMIN, NET_RAW and BPF (a rootless one can't), \
             and the kernel must be 5.9 or newer",
        ),
        false => failure,
    }
}

fn is_about_rights(failure: &Failure) -> bool {
    let about_rights = |text: &String| RIGHTS.iter().any(|word| text.contains(word));
    failure.causes.iter().chain([&failure.sentence]).any(about_rights)
}

fn with_words(failure: Failure, session: &Session) -> Failure {
    let words = session.proxy.last_words().iter().chain(session.far.last_words());
    words.fold(failure, Failure::because)
}

/// Attaches to a created container, tells it its configuration and starts it.
pub async fn start(
    common: &Common<'_>,
    role: Role,
    id: String,
    config: &impl serde::Serialize,
) -> Result<Running, Failure> {
    let mut attached = Attached::to(common.engine, &id).await?;
    let sent = attached.send(config).await;
    sent.map_err(|error| Failure::caused_by("cannot talk to mirrord's container", &error))?;
    common.start(role, &id).await?;
    Ok(Running::new(id, attached))
}
