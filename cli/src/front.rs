//! `mirrord docker run …` and `mirrord exec …`: a session, then the app, then nothing left.
//!
//! ```text
//!   front ─┬─ keeper (session)       brings up, keeps and removes proxy and agent
//!          └─ docker run …           the user's own client, in the sidecar's network
//!             or CMD                 the process itself, with the preload library in it
//! ```

mod app;
mod background;
mod docker;
mod ending;
mod link;
mod locked;
mod process;
mod signals;
mod tell;
pub mod trampoline;

pub use background::{bring_up, plan_of_compose};
pub use docker::{Joined, Prepared as DockerLine, UsersVariables, memory_file, path_of, replace};

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use mirrord_protocol::control::Target;
use nix::sys::signal::Signal;

use self::app::App;
use self::link::Keeper;
use self::process::Refusal;
use self::signals::Signals;
use crate::docker_run::{DockerRun, Rehomed, rehome};
use crate::engine::Endpoint;
use crate::engine::endpoint::{self, Sources};
use crate::exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::session::desk::until;
use crate::session::events::Event;
use crate::session::plan::Command;
use crate::session::plane::{Plane, PlaneArg};
use crate::session::{Plan, SessionId, here};
use crate::settings::Settings;

/// How often progress is shown while a session comes up.
const TICK: Duration = Duration::from_millis(100);
/// docker has created its container by then.
const STARTING: Duration = Duration::from_secs(1);
/// How long a process may take to end once it has lost its session.
const ENDING: Duration = Duration::from_secs(10);

/// Runs a container in the target's place; the exit code.
pub fn run_container(
    settings: &Settings,
    mut run: DockerRun,
    progress: &mut Progress,
) -> Result<u8, Failure> {
    let users = UsersVariables::of(&mut run)?;
    let (rehomed, flags) = rehome::rehome(&run)?;
    let endpoint = endpoint::of(&run)?;
    let plane = plane(settings.plane, &endpoint, progress);
    let app = AppPlan {
        shares_terminal: docker::shares_terminal(&endpoint.host),
        raw: run.switch("tty") && !run.switch("detach") && io::stdin().is_terminal(),
        removes: run.switch("rm"),
        detaches: run.switch("detach"),
        shields: run.values("sig-proxy").next().is_some() && !run.switch("sig-proxy"),
    };
    let plan = Plan {
        app_image: run.image(),
        app_entrypoint: run.values("entrypoint").last(),
        app_words: run.words(),
        // Podman's containers join the network of other users as well.
        app_userns: run.values("userns").last().filter(|_| endpoint.podman.is_none()),
        app_removes: app.removes,
        rehomed,
        ..plan(settings, plane, Some(endpoint))?
    };
    let prepared = Prepared::Docker(docker::Prepared::new(&run, flags, users)?);
    run_app(settings, plan, app, prepared, progress)
}

/// Who is to redirect; what cannot work is not tried.
fn plane(arg: PlaneArg, endpoint: &Endpoint, progress: &mut Progress) -> Plane {
    let rootless = endpoint.podman.as_ref().is_some_and(|podman| podman.rootless);
    if rootless && arg == PlaneArg::Auto {
        progress.note(
            "podman without root may not let the kernel redirect: the preload library does; \
             --plane layer asks for it at once",
        );
        return Plane::Layer;
    }
    Plane::of_container(arg)
}

/// Runs a process of this machine in the target's place; the exit code.
pub fn run_process(
    settings: &Settings,
    words: &[OsString],
    progress: &mut Progress,
) -> Result<u8, Refusal> {
    if settings.plane == PlaneArg::Netns {
        let failure =
            Failure::new("the kernel cannot redirect the network of a process of this machine")
                .hint("leave --plane netns out, or use 'mirrord docker run'");
        return Err((failure, exit::MISUSE));
    }
    let prepared = Prepared::Process(process::Prepared::new(words)?);
    let run = || {
        let session = SessionId::random().map_err(cannot)?;
        let plane = Plane::Here(here::place_for(&session).map_err(cannot)?);
        let endpoint = match settings.is_remote() {
            true => None,
            false => Some(Sources::of_environment().resolve()?),
        };
        let app_words = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let plan = Plan { session, app_words, ..plan(settings, plane, endpoint)? };
        let app = AppPlan { shares_terminal: io::stdin().is_terminal(), ..AppPlan::default() };
        run_app(settings, plan, app, prepared, progress)
    };
    run().map_err(|failure| (failure, exit::FAILED))
}

fn cannot(error: io::Error) -> Failure {
    Failure::caused_by("cannot start a session", &error)
}

fn plan(settings: &Settings, plane: Plane, endpoint: Option<Endpoint>) -> Result<Plan, Failure> {
    Ok(Plan {
        session: SessionId::random().map_err(cannot)?,
        plane,
        layer: settings.layer.clone(),
        hostname: settings.hostname,
        endpoint,
        target: settings.target.clone(),
        cluster: settings.cluster.clone(),
        app_image: String::new(),
        app_entrypoint: None,
        app_words: Vec::new(),
        app_userns: None,
        app_removes: false,
        rehomed: Rehomed::default(),
        incoming: settings.incoming.clone(),
        outgoing_tcp: settings.outgoing_tcp,
        outgoing_udp: settings.outgoing_udp,
        remote_dns: settings.remote_dns,
        env: settings.env.wanted(),
        log: settings.log.clone(),
        standing: None,
    })
}

fn run_app(
    settings: &Settings,
    plan: Plan,
    app: AppPlan,
    prepared: Prepared,
    progress: &mut Progress,
) -> Result<u8, Failure> {
    let blocked = signals::block().map_err(cannot)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(cannot)?.block_on(async {
        let signals = Signals::of(&blocked).map_err(cannot)?;
        let keeper = Keeper::start(&plan).await.map_err(cannot)?;
        Front { settings, plan, app, progress, signals, keeper, keeping: Keeping::Alive }
            .run(prepared)
            .await
    })
}

/// What only waits for its session.
enum Prepared {
    Docker(docker::Prepared),
    Process(process::Prepared),
}

impl Prepared {
    /// The variables that the user gives.
    fn users_variables(&self) -> HashSet<String> {
        match self {
            Self::Docker(docker) => docker.users_variables().clone(),
            Self::Process(_) => HashSet::new(),
        }
    }
}

/// How the app stands to the terminal and to its end.
#[derive(Default)]
struct AppPlan {
    /// Whether it is in our process group.
    shares_terminal: bool,
    /// Whether docker makes the terminal raw.
    raw: bool,
    /// Whether docker removes the container afterwards.
    removes: bool,
    /// Whether docker leaves the container to itself once it runs.
    detaches: bool,
    /// Whether docker keeps its own signals from the container, which then goes on without it.
    shields: bool,
}

struct Front<'a> {
    settings: &'a Settings,
    plan: Plan,
    app: AppPlan,
    progress: &'a mut Progress,
    signals: Signals,
    keeper: Keeper,
    keeping: Keeping,
}

/// What is known of the keeper.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// It keeps the session.
    Alive,
    /// It has cleaned up.
    Done,
    /// It is gone and has not cleaned up.
    Killed,
}

/// How a session's coming up ended.
enum Start {
    Ready(App),
    Interrupted(i32),
}

impl Front<'_> {
    async fn run(mut self, prepared: Prepared) -> Result<u8, Failure> {
        match self.start(prepared).await {
            Ok(Start::Ready(app)) => Ok(self.serve(app).await),
            Ok(Start::Interrupted(signal)) => {
                self.progress.stop_spinner();
                self.end(Command::End).await;
                Ok(exit::of_signal(signal))
            }
            Err(failure) => {
                self.progress.stop_spinner();
                self.end(Command::End).await;
                Err(failure)
            }
        }
    }

    /// Waits for the session, then starts the app.
    async fn start(&mut self, prepared: Prepared) -> Result<Start, Failure> {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                event = self.keeper.next() => match event {
                    Some(Event::Ready { sidecar, name, target, pinned, preloaded }) => {
                        self.lock(&prepared, &target, pinned).await?;
                        let app = self.start_app(prepared, sidecar, &name, target, preloaded)?;
                        return Ok(Start::Ready(app));
                    }
                    Some(Event::NoNetns(failure)) => self.use_the_layer(&failure).await?,
                    Some(Event::Failed(failure) | Event::Lost(failure)) => return Err(failure),
                    Some(event) => self.tell(event),
                    None => {
                        self.keeping = Keeping::Killed;
                        return Err(Failure::new("the session's keeper was killed"));
                    }
                },
                received = self.signals.next() => match received {
                    Ok(received) if signals::ends(received.signal) => {
                        return Ok(Start::Interrupted(received.signal as i32));
                    }
                    Ok(_) => {}
                    Err(error) => return Err(Failure::caused_by("cannot read signals", &error)),
                },
                _ = ticks.tick() => self.progress.tick(),
            }
        }
    }

    fn start_app(
        &mut self,
        prepared: Prepared,
        sidecar: Option<String>,
        name: &str,
        target: Target,
        preloaded: Option<String>,
    ) -> Result<App, Failure> {
        let Target { env, env_skipped, .. } = target;
        let shares_terminal = self.app.shares_terminal;
        match (prepared, self.plan.plane.here(), sidecar) {
            (Prepared::Docker(docker), None, Some(sidecar)) => {
                let delivery = self.settings.env.deliver(env, docker.users_variables());
                self.tell_ready(name, &delivery.undelivered, &env_skipped);
                docker.start(&self.plan, &sidecar, &delivery, preloaded, shares_terminal)
            }
            (Prepared::Process(process), Some(here), _) => {
                let app = process.start(here, &self.settings.env, env, shares_terminal)?;
                self.tell_ready(name, &[], &env_skipped);
                Ok(app)
            }
            _ => Err(Failure::new("the session came up in another place than it was asked to")),
        }
    }

    /// Begins again, without the kernel.
    async fn use_the_layer(&mut self, failure: &Failure) -> Result<(), Failure> {
        self.drain().await;
        self.keeping = Keeping::Alive;
        self.plan.plane = Plane::Layer;
        self.plan.session = SessionId::random().map_err(cannot)?;
        self.keeper = Keeper::start(&self.plan).await.map_err(cannot)?;
        let why = failure.causes.last().unwrap_or(&failure.sentence);
        self.progress.note(&format!(
            "the kernel does not redirect here ({why}): the preload library does; --plane layer \
             asks for it at once"
        ));
        Ok(())
    }

    /// Waits for the app's end; the exit code.
    async fn serve(&mut self, mut app: App) -> u8 {
        self.progress.raw(self.app.raw);
        let began = Instant::now();
        let (mut end, mut kill, mut failed) = (Command::End, None, false);
        let status = loop {
            tokio::select! {
                status = app.wait() => break status,
                event = self.keeper.next(), if self.keeping == Keeping::Alive => {
                    let ends = matches!(event, Some(Event::Lost(_) | Event::Stopping) | None);
                    failed |= matches!(event, Some(Event::Lost(_)) | None);
                    match event {
                        Some(event) => self.tell(event),
                        None => {
                            self.keeping = Keeping::Killed;
                            let failure = Failure::new("the session's keeper was killed");
                            self.progress.failure(&failure);
                            self.clean().await;
                        }
                    }
                    // A container is stopped by whoever keeps or cleans up its session.
                    if ends && self.plan.plane.here().is_some() {
                        app.signal(Signal::SIGTERM);
                        kill = Some(tokio::time::Instant::now() + ENDING);
                    }
                },
                () = until(kill) => {
                    app.signal(Signal::SIGKILL);
                    kill = None;
                }
                received = self.signals.next() => if let Ok(received) = received {
                    if signals::ends(received.signal) {
                        let early = self.app.removes && began.elapsed() < STARTING;
                        end = if early { Command::EndInterrupted } else { Command::EndSignalled };
                    }
                    app.forward(received);
                },
            }
        };
        self.progress.raw(false);
        let code = match &status {
            // It did not end by itself.
            _ if failed && self.plan.plane.here().is_some() => exit::FAILED,
            Ok(status) => exit::of_status(*status),
            Err(_) => exit::FAILED,
        };
        // A client that was killed leaves its container running; that is not how a run ends.
        let own_end = self.app.shields || self.plan.plane.here().is_some();
        if own_end || status.is_ok_and(|status| status.code().is_some()) {
            self.end(end).await;
        } else {
            self.keeper.abandon();
            self.drain().await;
        }
        code
    }
}
