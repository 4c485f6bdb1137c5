//! From a plan to a session that is ready for the app.
//!
//! ```text
//!   target ─► create sidecar ─┬─► start sidecar ────────────────┬─► tunnel ─► network
//!             (image, if new) └─► create agent ─► start agent ──┘
//! ```
//!
//! A target in a cluster is looked for there, and its agents are made there, while the sidecar is.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bollard::query_parameters::InspectNetworkOptions;
use mirrord_protocol::Token;
use mirrord_protocol::control::{Agents, ProxyConfig, ProxyEvent, Target as Described};
use tokio::sync::watch;
use tokio::time::timeout;

use super::beside::{Beside, With, target_stopped};
use super::containers::{ProxySaid, Running, Said};
use super::events::{Event, Reporter, Step, millis};
use super::far::{Far, FarSaid};
use super::plan::Learned;
use super::remote::Found;
use super::{Plan, id};
use crate::engine::attached::Attached;
use crate::engine::connect::EngineError;
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
    /// Where the sidecar is.
    pub engine: Engine,
    /// The sidecar.
    pub proxy: Running,
    /// The target and its agents.
    pub far: Far,
}

/// The way there.
pub struct BringUp<'a> {
    /// What is asked for.
    pub plan: &'a Plan,
    /// Who hears of it.
    pub reporter: &'a Reporter,
    /// Becomes true when something may be in the engine.
    pub begun: &'a Cell<bool>,
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
        self.reporter.say(&Event::Ready {
            sidecar: session.proxy.id.clone(),
            name: session.far.target().to_owned(),
            target: described,
        });
        Ok(session)
    }

    /// The target is a container of the sidecar's engine.
    async fn with_container(&mut self, token: &Token) -> Result<Session, Failure> {
        let began = Instant::now();
        let (engine, target) = self.find_target().await?;
        self.step(Step::Target, began);
        let mut learned = self.learn(&engine).await?;
        learned.address = target.address.clone();
        let image = image::tag()?;
        let common = Common { engine: &engine, session: &self.plan.session, image: &image };
        let names = Names { host: target.hostname.clone(), domain: target.domainname.clone() };
        self.begun.set(true);
        let sidecar = self.create_sidecar(&common, &names, &learned.image_ports).await?;
        self.go_on()?;
        let with = With {
            plan: self.plan.clone(),
            engine: engine.clone(),
            target,
            sidecar: sidecar.clone(),
            token: token.clone(),
            image: image.clone(),
        };
        let created = Instant::now();
        // Both to their ends, even if one fails: what is half made could show up after all is clean.
        let config = self.plan.proxy_config(token, Agents::Socket, &learned);
        let (proxy, agent) =
            tokio::join!(self.start_sidecar(&common, sidecar, &config, created), async {
                let running = with.start_agent().await?;
                self.step(Step::Agent, created);
                Ok::<_, Failure>(running)
            });
        let proxy = proxy?;
        let agent = match agent {
            Err(_) if !target::still_runs(&engine, &with.target).await => {
                return Err(target_stopped(&with.target));
            }
            agent => agent?,
        };
        Ok(Session { engine, proxy, far: Far::Beside(Box::new(Beside::new(with, agent))) })
    }

    /// The target is in a cluster.
    async fn with_cluster(&mut self, token: &Token) -> Result<Session, Failure> {
        let began = Instant::now();
        let (engine, found) = tokio::join!(self.find_engine(), Found::find(self.plan));
        let (engine, found) = (engine?, found?);
        self.step(Step::Target, began);
        let mut learned = self.learn(&engine).await?;
        let (host, address) = found.identity();
        learned.address = address;
        let image = image::tag()?;
        let common = Common { engine: &engine, session: &self.plan.session, image: &image };
        let names = Names { host, domain: None };
        let config = self.plan.proxy_config(token, Agents::Handed(found.count()), &learned);
        self.begun.set(true);
        let (sidecar_tx, sidecar_rx) = watch::channel(None);
        let both = async {
            tokio::join!(
                async {
                    let sidecar =
                        self.create_sidecar(&common, &names, &learned.image_ports).await?;
                    let created = Instant::now();
                    let proxy = self.start_sidecar(&common, sidecar, &config, created).await?;
                    sidecar_tx.send_replace(Some(proxy.id.clone()));
                    Ok::<_, Failure>(proxy)
                },
                found.start(self.plan, &engine, token, sidecar_rx, self.reporter),
            )
        };
        let mut unwanted = self.unwanted.clone();
        let (proxy, remote) = tokio::select! {
            both = both => both,
            // What is half made then is swept as a late arrival.
            _ = unwanted.wait_for(|unwanted| *unwanted) => return Err(Failure::new("interrupted")),
        };
        match (proxy, remote) {
            (Ok(proxy), Ok(remote)) => {
                Ok(Session { engine, proxy, far: Far::Remote(Box::new(remote)) })
            }
            (Err(failure), Ok(mut remote)) => {
                remote.leave().await;
                Err(failure)
            }
            (_, Err(failure)) => Err(failure),
        }
    }

    async fn start_sidecar(
        &self,
        common: &Common<'_>,
        sidecar: String,
        config: &ProxyConfig,
        since: Instant,
    ) -> Result<Running, Failure> {
        let running = start(common, Role::Proxy, sidecar, config).await?;
        self.step(Step::Sidecar, since);
        Ok(running)
    }

    fn go_on(&self) -> Result<(), Failure> {
        match *self.unwanted.borrow() {
            true => Err(Failure::new("interrupted")),
            false => Ok(()),
        }
    }

    fn step(&self, step: Step, began: Instant) {
        let took = millis(began.elapsed());
        self.reporter.say(&Event::Step { step, took });
    }

    /// Finds the target, and with it the version that the engine speaks.
    async fn find_target(&self) -> Result<(Engine, Target), Failure> {
        let engine = Engine::new(&self.plan.endpoint)?;
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

    /// An engine that answers, and the version that it speaks.
    async fn find_engine(&self) -> Result<Engine, Failure> {
        let engine = Engine::new(&self.plan.endpoint)?;
        let answer = timeout(ENGINE_PATIENCE, engine.answer()).await;
        match answer.unwrap_or_else(|_| Err(engine.silent())) {
            Ok(()) => Ok(engine),
            Err(error) => engine.with_version_of(&error).ok_or_else(|| error.into()),
        }
    }

    async fn learn(&self, engine: &Engine) -> Result<Learned, Failure> {
        let gateway = match self.plan.wants_gateway() {
            true => self.gateway(engine).await,
            false => None,
        };
        let image_ports = self.image_ports(engine).await?;
        Ok(Learned { image_ports, gateway, address: None })
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

    async fn create_sidecar(
        &self,
        common: &Common<'_>,
        names: &Names,
        image_ports: &[String],
    ) -> Result<String, Failure> {
        let Plan { rehomed, remote_dns, .. } = self.plan;
        let create = || common.create_sidecar(names, rehomed, image_ports, *remote_dns);
        match create().await {
            Err(error) if is_missing_image(&error) => {
                self.go_on()?;
                let began = Instant::now();
                image::make(common.engine, common.image).await?;
                self.step(Step::Image, began);
                self.go_on()?;
                Ok(create().await?)
            }
            other => Ok(other?),
        }
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
            Said::Event(ProxyEvent::Failed { causes }) => return Err(part_failed(causes)),
            // An agent that has only just begun to listen may miss the first pipe.
            Said::Event(ProxyEvent::Refused { reason, .. }) if self.refusals.len() < REFUSALS => {
                self.refusals.push(reason);
            }
            Said::Event(ProxyEvent::Refused { reason, .. }) => {
                return Err(Failure::new("there is no tunnel to the target").because(reason));
            }
            Said::Event(said) => self.reporter.say(&Event::Proxy { said }),
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
    let about_rights = |text: &String| RIGHTS.iter().any(|word| text.contains(word));
    let refused = failure.causes.iter().chain([&failure.sentence]).any(about_rights);
    match refused {
        true => failure.hint(
            "the engine must allow a container NET_ADMIN, NET_RAW and BPF (a rootless one can't), \
             and the kernel must be 5.9 or newer",
        ),
        false => failure,
    }
}

fn with_words(failure: Failure, session: &Session) -> Failure {
    let words = session.proxy.last_words().iter().chain(session.far.last_words());
    words.fold(failure, Failure::because)
}

fn is_missing_image(error: &EngineError) -> bool {
    error.is_not_found() && error.message().to_lowercase().contains("no such image")
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
