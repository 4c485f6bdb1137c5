//! From a plan to a session that is ready for the app.
//!
//! ```text
//!   target ─► create sidecar ─┬─► start sidecar ────────────────┬─► tunnel ─► network
//!             (image, if new) └─► create agent ─► start agent ──┘
//! ```

use std::cell::Cell;
use std::time::{Duration, Instant};

use bollard::query_parameters::InspectNetworkOptions;
use mirrord_protocol::Token;
use mirrord_protocol::control::{AgentEvent, ProxyEvent, Target as Described};
use tokio::sync::watch;
use tokio::time::timeout;

use super::containers::{AgentSaid, ProxySaid, Running, Said};
use super::events::{Event, Reporter, Step, millis};
use super::plan::Learned;
use super::{Plan, id};
use crate::engine::attached::Attached;
use crate::engine::connect::EngineError;
use crate::engine::containers::{Common, Role};
use crate::engine::target::{self, Target, TargetError};
use crate::engine::{Engine, image};
use crate::failure::Failure;

/// How long proxy and agent may take to stand once they run.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an engine may take to answer for the first time.
const ENGINE_PATIENCE: Duration = Duration::from_secs(10);

/// Words of a kernel or an engine that refuses.
const RIGHTS: &[&str] = &["Operation not permitted", "os error 1)", "EPERM", "Invalid argument"];

/// A session that is ready for the app.
pub struct Session {
    /// Where it is.
    pub engine: Engine,
    /// Whose place is taken.
    pub target: Target,
    /// The sidecar.
    pub proxy: Running,
    /// The agent.
    pub agent: Running,
    /// What a new agent needs.
    pub token: Token,
    /// Our image.
    pub image: String,
}

/// The way there.
pub struct BringUp<'a> {
    /// What is asked for.
    pub plan: &'a Plan,
    /// Who hears of it.
    pub reporter: &'a Reporter,
    /// Becomes true when something may be in the engine.
    pub begun: &'a Cell<bool>,
    /// Becomes true when nobody wants it any more. It then ends at the next point where nothing
    /// is half made: a request that is dropped may still be carried out.
    pub unwanted: watch::Receiver<bool>,
}

impl BringUp<'_> {
    /// Goes it.
    pub async fn run(mut self) -> Result<Session, Failure> {
        let began = Instant::now();
        let (engine, target) = self.find_target().await?;
        self.step(Step::Target, began);
        let learned = self.learn(&engine, &target).await?;
        let token = id::token().map_err(|error| Failure::caused_by("no randomness", &error))?;
        let image = image::tag()?;
        let common = Common { engine: &engine, session: &self.plan.session, image: &image };
        self.begun.set(true);
        let sidecar = self.create_sidecar(&common, &target, &learned.image_ports).await?;
        self.go_on()?;
        let created = Instant::now();
        // Both to their ends, even if one fails: what is half made could show up after all is clean.
        let (proxy, agent) = tokio::join!(
            async {
                let config = self.plan.proxy_config(&token, &learned);
                let running = start(&common, Role::Proxy, sidecar.clone(), &config).await?;
                self.step(Step::Sidecar, created);
                Ok::<_, Failure>(running)
            },
            async {
                let running = start_agent(&common, self.plan, &target, &sidecar, &token).await?;
                self.step(Step::Agent, created);
                Ok::<_, Failure>(running)
            },
        );
        let proxy = proxy?;
        let agent = match agent {
            Err(_) if !target::still_runs(&engine, &target).await => {
                return Err(target_stopped(&target));
            }
            agent => agent?,
        };
        let mut session = Session { engine: engine.clone(), target, proxy, agent, token, image };
        let described = self.until_ready(&mut session).await?;
        self.reporter.say(&Event::Ready {
            sidecar,
            name: session.target.name.clone(),
            target: described,
        });
        Ok(session)
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
        let found = timeout(ENGINE_PATIENCE, target::find(&engine, &self.plan.target)).await;
        match found.unwrap_or_else(|_| Err(engine.silent().into())) {
            Ok(target) => Ok((engine, target)),
            Err(TargetError::Engine(error)) => {
                let Some(engine) = engine.with_version_of(&error) else {
                    return Err(error.into());
                };
                let target = target::find(&engine, &self.plan.target).await?;
                Ok((engine, target))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn learn(&self, engine: &Engine, target: &Target) -> Result<Learned, Failure> {
        let gateway = match self.plan.wants_gateway() {
            true => self.gateway(engine).await,
            false => None,
        };
        let image_ports = self.image_ports(engine).await?;
        Ok(Learned { image_ports, gateway, address: target.address.clone() })
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
        target: &Target,
        image_ports: &[String],
    ) -> Result<String, Failure> {
        let Plan { rehomed, remote_dns, .. } = self.plan;
        let create = || common.create_sidecar(target, rehomed, image_ports, *remote_dns);
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
            let Session { proxy, agent, .. } = session;
            tokio::select! {
                said = proxy.next() => if let Some(described) = self.heard_proxy(proxy, said, began)? {
                    return Ok(described);
                },
                said = agent.next() => match said {
                    Said::Ended => return Err(self.agent_ended(session, Vec::new()).await),
                    Said::Event(AgentEvent::Failed { causes }) => {
                        return Err(self.agent_ended(session, causes).await);
                    }
                    said => self.heard_agent(said),
                },
                () = &mut late => {
                    let failure = Failure::new("the tunnel to the target did not come up in 30 s");
                    return Err(with_words(failure, session));
                }
                _ = self.unwanted.changed() => self.go_on()?,
            }
        }
    }

    fn heard_proxy(
        &self,
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
            Said::Event(said) => self.reporter.say(&Event::Proxy { said }),
            Said::Log(line) => self.reporter.log(Role::Proxy, line),
            Said::Ended => {
                let failure = Failure::new("the sidecar ended before it was ready");
                return Err(proxy.last_words().iter().fold(failure, Failure::because));
            }
        }
        Ok(None)
    }

    fn heard_agent(&self, said: AgentSaid) {
        if let Said::Log(line) = said {
            self.reporter.log(Role::Agent, line);
        }
    }

    async fn agent_ended(&self, session: &Session, causes: Vec<String>) -> Failure {
        if !target::still_runs(&session.engine, &session.target).await {
            return target_stopped(&session.target);
        }
        let words = if causes.is_empty() { session.agent.last_words().to_vec() } else { causes };
        let sentence = "the agent beside the target could not start".to_owned();
        part_failed([sentence].into_iter().chain(words).collect())
    }
}

/// What is said when the target's container is gone.
pub fn target_stopped(target: &Target) -> Failure {
    Failure::new(format!("the target container {} stopped", target.name))
        .hint(format!("start it and run the command again: docker start {}", target.name))
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
    let words = session.proxy.last_words().iter().chain(session.agent.last_words());
    words.fold(failure, Failure::because)
}

fn is_missing_image(error: &EngineError) -> bool {
    error.is_not_found() && error.message().to_lowercase().contains("no such image")
}

/// Creates an agent beside the target, and starts it.
pub async fn start_agent(
    common: &Common<'_>,
    plan: &Plan,
    target: &Target,
    sidecar: &str,
    token: &Token,
) -> Result<Running, Failure> {
    let id = common.create_agent(target, sidecar).await?;
    start(common, Role::Agent, id, &plan.agent_config(token, target.pid)).await
}

/// Attaches to a created container, tells it its configuration and starts it.
async fn start(
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
