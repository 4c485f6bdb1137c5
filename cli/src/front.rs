//! `mirrord docker run …`: a session, then docker, then nothing left.
//!
//! ```text
//!   front ─┬─ keeper (session)       brings up, keeps and removes sidecar and agent
//!          └─ docker run …           the user's own client, in the sidecar's network
//! ```

mod docker;
mod link;
mod signals;
pub mod trampoline;

pub use docker::replace;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use mirrord_protocol::control::{IncomingMode, PortMapping, Protocol, ProxyEvent};

use self::docker::{Docker, Prepared, UsersVariables};
use self::link::Keeper;
use self::signals::Signals;
use crate::docker_run::{DockerRun, rehome};
use crate::engine::endpoint::Sources;
use crate::engine::{Engine, clean};
use crate::exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::session::events::Event;
use crate::session::plan::Command;
use crate::session::{Plan, SessionId, remote};
use crate::settings::Settings;

/// How often progress is shown while a session comes up.
const TICK: Duration = Duration::from_millis(100);
/// docker has created its container by then.
const STARTING: Duration = Duration::from_secs(1);

/// Runs a container in the target's place; the exit code.
pub fn run(
    settings: &Settings,
    mut run: DockerRun,
    progress: &mut Progress,
) -> Result<u8, Failure> {
    let users = UsersVariables::of(&mut run)?;
    let (rehomed, flags) = rehome::rehome(&run)?;
    let cannot = |error: std::io::Error| Failure::caused_by("cannot start a session", &error);
    let plan = Plan {
        session: SessionId::random().map_err(cannot)?,
        endpoint: Sources::of(&run).resolve()?,
        target: settings.target.clone(),
        cluster: settings.cluster.clone(),
        app_image: run.image(),
        rehomed,
        incoming: settings.incoming.clone(),
        outgoing_tcp: settings.outgoing_tcp,
        outgoing_udp: settings.outgoing_udp,
        remote_dns: settings.remote_dns,
        env: settings.env.wanted(),
        log: settings.log.clone(),
    };
    let prepared = Prepared::new(&run, flags, users)?;
    let blocked = signals::block().map_err(cannot)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(cannot)?.block_on(async {
        let signals = Signals::of(&blocked).map_err(cannot)?;
        let keeper = Keeper::start(&plan).await.map_err(cannot)?;
        let raw = run.switch("tty") && std::io::stdin().is_terminal();
        Front {
            settings,
            plan: &plan,
            progress,
            signals,
            keeper,
            raw,
            removes: run.switch("rm"),
            keeping: Keeping::Alive,
        }
        .run(prepared)
        .await
    })
}

struct Front<'a> {
    settings: &'a Settings,
    plan: &'a Plan,
    progress: &'a mut Progress,
    signals: Signals,
    keeper: Keeper,
    /// Whether docker makes the terminal raw.
    raw: bool,
    /// Whether docker removes the container afterwards.
    removes: bool,
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
    Ready(Docker),
    Interrupted(i32),
}

impl Front<'_> {
    async fn run(mut self, prepared: Prepared) -> Result<u8, Failure> {
        match self.start(prepared).await {
            Ok(Start::Ready(docker)) => Ok(self.serve(docker).await),
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

    /// Waits for the session, then starts docker.
    async fn start(&mut self, prepared: Prepared) -> Result<Start, Failure> {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                event = self.keeper.next() => match event {
                    Some(Event::Ready { sidecar, name, target }) => {
                        let rules = &self.settings.env;
                        let delivery = rules.deliver(target.env, prepared.users_variables());
                        self.tell_ready(&name, &delivery.undelivered, &target.env_skipped);
                        let shares = docker::shares_terminal(&self.plan.endpoint.host);
                        let session = &self.plan.session;
                        let docker = prepared.start(session, &sidecar, &delivery, shares)?;
                        return Ok(Start::Ready(docker));
                    }
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

    /// Waits for docker's end; the exit code.
    async fn serve(&mut self, mut docker: Docker) -> u8 {
        self.progress.raw(self.raw);
        let began = Instant::now();
        let mut end = Command::End;
        let status = loop {
            tokio::select! {
                status = docker.wait() => break status,
                event = self.keeper.next(), if self.keeping == Keeping::Alive => match event {
                    Some(event) => self.tell(event),
                    None => {
                        self.keeping = Keeping::Killed;
                        self.progress.failure(&Failure::new("the session's keeper was killed"));
                        self.clean().await;
                    }
                },
                received = self.signals.next() => if let Ok(received) = received {
                    if self.removes && signals::ends(received.signal) && began.elapsed() < STARTING {
                        end = Command::EndInterrupted;
                    }
                    docker.forward(received);
                },
            }
        };
        self.progress.raw(false);
        let code = status.as_ref().map_or(exit::FAILED, |status| exit::of_status(*status));
        // A client that was killed leaves its container running; that is not how a run ends.
        if status.is_ok_and(|status| status.code().is_some()) {
            self.end(end).await;
        } else {
            self.keeper.abandon();
            self.drain().await;
        }
        code
    }

    /// Has the session cleaned up, unless the app goes on without its client.
    async fn end(&mut self, command: Command) {
        match self.keeping {
            Keeping::Killed => self.clean().await,
            Keeping::Alive | Keeping::Done => {
                self.keeper.end(command).await;
                self.drain().await;
            }
        }
    }

    async fn drain(&mut self) {
        while let Some(event) = self.keeper.next().await {
            if matches!(event, Event::Detached) {
                let session = &self.plan.session;
                self.progress
                    .note(&format!("the container goes on, and session {session} with it"));
                return;
            }
            self.tell(event);
        }
    }

    /// Cleans up in the place of a keeper that is gone.
    async fn clean(&mut self) {
        let session = &self.plan.session;
        let cleaned = async {
            let engine = Engine::new(&self.plan.endpoint)?;
            let here = clean::clean_late_arrivals(&engine, session);
            let (here, there) = tokio::join!(here, remote::clean(self.plan, true));
            here?;
            there
        };
        if let Err(failure) = cleaned.await {
            self.progress.failure(&failure.hint(format!(
                "remove what is left: docker rm -f $(docker ps -aqf label={}={session})",
                clean::SESSION_LABEL
            )));
        }
    }

    fn tell_ready(&mut self, name: &str, undelivered: &[(String, &str)], skipped: &[String]) {
        for (variable, reason) in undelivered {
            self.progress
                .warning(&format!("the target's variable {variable} is left out: {reason}"));
        }
        for variable in skipped.iter().filter(|_| self.plan.env) {
            let text = format!("the target's variable {variable} is left out: it is not UTF-8");
            self.progress.warning(&text);
        }
        if let Some(text) = self.plan.overruled_dns() {
            self.progress.warning(&text);
        }
        let traffic = match self.plan.incoming.mode {
            IncomingMode::Mirror => "with a copy of its traffic",
            IncomingMode::Steal => "with its traffic",
            IncomingMode::Off => "without its traffic",
        };
        match (&self.plan.target, self.plan.is_remote()) {
            (None, _) => self.progress.ready("in the cluster's network, without a target"),
            (_, true) => self.progress.ready(&format!("in the place of {name}, {traffic}")),
            (_, false) => {
                self.progress.ready(&format!("in the place of container/{name}, {traffic}"));
            }
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Step { step, took } => self.progress.step(step, took),
            Event::Proxy { said } => self.tell_proxy(said),
            Event::AgentRestarted { reason } => {
                let why = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                self.progress
                    .note(&format!("the agent beside the target ended{why}; a new one is there"));
            }
            Event::Moved { from, to } => self.tell_moved(from, to),
            Event::Lost(failure) | Event::Failed(failure) => self.progress.failure(&failure),
            Event::Warning { message } => self.progress.warning(&message),
            Event::Log { from, line } => self.progress.log(&from, &line),
            Event::Cleaned { took } => {
                self.keeping = Keeping::Done;
                let took = Duration::from_millis(took).as_secs_f64();
                self.progress.detail(&format!("cleaned up ({took:.2} s)"));
            }
            Event::Ready { .. } | Event::Detached => {}
        }
    }

    fn tell_moved(&mut self, from: Option<String>, to: Option<String>) {
        let text = match (from, to) {
            (Some(from), Some(to)) => format!("pod {from} is going: the session moves to pod {to}"),
            (None, Some(to)) => format!("pod {to} is a target now"),
            (Some(from), None) => format!("pod {from} is gone: waiting for another one"),
            (None, None) => return,
        };
        self.progress.note(&text);
    }

    fn tell_proxy(&mut self, said: ProxyEvent) {
        match said {
            ProxyEvent::Subscribed(port) => {
                self.progress.detail(&format!("{} comes to the app", port_text(port)));
            }
            ProxyEvent::Unsubscribed(port) => {
                self.progress.detail(&format!("{} no longer comes to the app", port_text(port)));
            }
            ProxyEvent::SubscribeFailed { port, reason } => {
                self.progress
                    .warning(&format!("{} does not come to the app: {reason}", port_text(port)));
            }
            ProxyEvent::Disconnected { reason, .. } => {
                self.progress.note(&format!("the tunnel to the target is cut: {reason}"));
            }
            ProxyEvent::Refused { reason, .. } => {
                self.progress.detail(&format!("no tunnel to the target: {reason}"));
            }
            ProxyEvent::Reconnected { .. } => {
                self.progress.note("the tunnel to the target is back")
            }
            ProxyEvent::Restarted => self.progress.note("the proxy was killed and started again"),
            ProxyEvent::Warning { message } => self.progress.warning(&message),
            ProxyEvent::Waiting
            | ProxyEvent::Connected
            | ProxyEvent::Ready(_)
            | ProxyEvent::Failed { .. } => {}
        }
    }
}

fn port_text(port: PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    match port.local == port.remote {
        true => format!("the target's port {}/{protocol}", port.remote),
        false => format!("the target's port {}/{protocol} (here {})", port.remote, port.local),
    }
}
