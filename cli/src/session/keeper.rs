//! The process that owns the session's containers, from the first to the last.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mirrord_protocol::control::{AgentEvent, ProxyEvent};
use nix::sys::signal::SigSet;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use super::bring_up::{self, BringUp, Session, target_stopped};
use super::containers::Said;
use super::events::{Event, Reporter, millis};
use super::plan::{Command, Plan};
use crate::engine::containers::{Common, Role};
use crate::engine::{Engine, clean, target};
use crate::failure::Failure;

/// How long sidecar and agent may take to leave when told to.
const LEAVING: Duration = Duration::from_secs(2);
/// How many agents may die in how long before the session gives up.
const AGENT_DEATHS: (usize, Duration) = (3, Duration::from_secs(60));
/// How long a target may take to be seen as stopped after its agent has died with it.
const TARGET_SEEN: Duration = Duration::from_secs(2);
/// A container that was being created while its creator died shows up by then.
const LATE_ARRIVALS: Duration = Duration::from_millis(500);

/// Runs the keeper: standard input is the front's, standard output goes to it.
pub fn run() -> ExitCode {
    // The front blocks signals to forward them; a child inherits that.
    let _ = SigSet::empty().thread_set_mask();
    // Out of the terminal's reach: Ctrl-C is for the app.
    let _ = nix::unistd::setsid();
    // A session may outlive what the front stands on.
    let _ = std::env::set_current_dir("/");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(keep())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = Failure::caused_by("the session's keeper could not start", &error);
            Reporter::new().say(&Event::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

async fn keep() -> io::Result<()> {
    let mut front = Front::new()?;
    let Some(plan) = front.plan().await? else {
        return Ok(());
    };
    let reporter = Reporter::new();
    let end = Keeper { plan: &plan, reporter: &reporter, front }.keep().await;
    match end {
        Ok(()) => Ok(()),
        Err(failure) => {
            reporter.say(&Event::Warning {
                message: format!("not everything is cleaned up: {failure}"),
            });
            Ok(())
        }
    }
}

/// The front's end of the pipe, and signals from elsewhere.
struct Front {
    lines: Lines<BufReader<pipe::Receiver>>,
    gone: bool,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What the keeper hears from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Command(Command),
    Gone,
    Told,
}

impl Front {
    fn new() -> io::Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        Ok(Self {
            lines: BufReader::new(pipe).lines(),
            gone: false,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn plan(&mut self) -> io::Result<Option<Plan>> {
        let line = self.lines.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }

    /// What is heard next; the end of the pipe is heard once. Can be cancelled without loss.
    async fn next(&mut self) -> Heard {
        loop {
            tokio::select! {
                line = self.lines.next_line(), if !self.gone => match line {
                    Ok(Some(line)) => if let Ok(command) = serde_json::from_str(&line) {
                        return Heard::Command(command);
                    },
                    Ok(None) | Err(_) => {
                        self.gone = true;
                        return Heard::Gone;
                    }
                },
                _ = self.terminate.recv() => return Heard::Told,
                _ = self.interrupt.recv() => return Heard::Told,
                _ = self.hang_up.recv() => return Heard::Told,
            }
        }
    }
}

/// Why a session ends.
enum End {
    /// The app has ended.
    App,
    /// The app may still be about to be created.
    Interrupted,
    /// The front died.
    FrontGone,
    /// The session can't go on.
    Lost(Failure),
}

struct Keeper<'a> {
    plan: &'a Plan,
    reporter: &'a Reporter,
    front: Front,
}

impl Keeper<'_> {
    async fn keep(mut self) -> Result<(), Failure> {
        let (unwanted_tx, unwanted) = watch::channel(false);
        let begun = Cell::new(false);
        let up = BringUp { plan: self.plan, reporter: self.reporter, begun: &begun, unwanted };
        let mut up = pin!(up.run());
        let brought = tokio::select! {
            brought = &mut up => brought,
            heard = self.front.next() => {
                unwanted_tx.send_replace(true);
                match up.await {
                    Ok(session) => return self.finish(session, End::of(heard)).await,
                    Err(_) if !begun.get() => return Ok(()),
                    Err(_) => return self.sweep(heard == Heard::Gone).await,
                }
            }
        };
        match brought {
            Ok(mut session) => {
                let end = self.serve(&mut session).await;
                self.finish(session, end).await
            }
            Err(failure) => {
                let swept = match begun.get() {
                    true => self.sweep(false).await,
                    false => Ok(()),
                };
                self.reporter.say(&Event::Failed(failure));
                swept
            }
        }
    }

    /// Removes what a session that never was has left.
    async fn sweep(&self, late_arrivals: bool) -> Result<(), Failure> {
        let began = Instant::now();
        let engine = Engine::new(&self.plan.endpoint)?;
        clean::clean_any_version(&engine, &self.plan.session).await?;
        if late_arrivals {
            tokio::time::sleep(LATE_ARRIVALS).await;
            clean::clean_any_version(&engine, &self.plan.session).await?;
        }
        self.reporter.say(&Event::Cleaned { took: millis(began.elapsed()) });
        Ok(())
    }

    /// Keeps the session until it ends.
    async fn serve(&mut self, session: &mut Session) -> End {
        let engine = session.engine.clone();
        let target_id = session.target.id.clone();
        let mut target_end = pin!(clean::not_running(&engine, &target_id));
        let mut app_end = pin!(apps_end(&engine, self.plan));
        let mut sweep = pin!(clean::sweep(&engine, &self.plan.session));
        let (mut staying, mut swept) = (false, false);
        let mut deaths = Deaths::default();
        let mut last_cause = None;
        loop {
            let Session { proxy, agent, .. } = &mut *session;
            tokio::select! {
                heard = self.front.next() => match heard {
                    Heard::Command(_) if self.app_goes_on(&engine).await => {
                        staying = true;
                        self.reporter.say(&Event::Detached);
                    }
                    Heard::Gone if staying => {}
                    other => return End::of(other),
                },
                said = proxy.next() => match said {
                    Said::Event(ProxyEvent::Failed { causes }) => {
                        return End::Lost(bring_up::part_failed(causes));
                    }
                    Said::Event(said) => self.reporter.say(&Event::Proxy { said }),
                    Said::Log(line) => self.reporter.log(Role::Proxy, line),
                    Said::Ended => return End::Lost(sidecar_ended(proxy.last_words())),
                },
                said = agent.next() => match said {
                    Said::Event(AgentEvent::Failed { causes }) => last_cause = causes.into_iter().next(),
                    Said::Event(AgentEvent::Listening) => {}
                    Said::Log(line) => self.reporter.log(Role::Agent, line),
                    Said::Ended => {
                        let reason = last_cause.take();
                        match self.new_agent(session, &mut deaths, reason).await {
                            Ok(()) => {}
                            Err(failure) => {
                                let stopped = timeout(TARGET_SEEN, &mut target_end).await.is_ok();
                                return End::Lost(match stopped {
                                    true => target_stopped(&session.target),
                                    false => failure,
                                });
                            }
                        }
                    }
                },
                () = &mut target_end => return End::Lost(target_stopped(&session.target)),
                // What others left is no concern of this session's user.
                _ = &mut sweep, if !swept => swept = true,
                () = &mut app_end, if staying => return End::App,
            }
        }
    }

    async fn app_goes_on(&self, engine: &Engine) -> bool {
        clean::running_apps(engine, &self.plan.session).await.is_ok_and(|apps| !apps.is_empty())
    }

    /// Starts another agent in the place of one that has ended.
    async fn new_agent(
        &self,
        session: &mut Session,
        deaths: &mut Deaths,
        reason: Option<String>,
    ) -> Result<(), Failure> {
        let cannot = || Failure::new("the agent beside the target keeps ending");
        if deaths.one_too_many() {
            let words = session.agent.last_words().iter();
            return Err(words.fold(cannot(), Failure::because));
        }
        let _ = timeout(LEAVING, clean::removed(&session.engine, &session.agent.id)).await;
        if !target::still_runs(&session.engine, &session.target).await {
            return Err(target_stopped(&session.target));
        }
        let common =
            Common { engine: &session.engine, session: &self.plan.session, image: &session.image };
        let sidecar = session.proxy.id.clone();
        session.agent =
            bring_up::start_agent(&common, self.plan, &session.target, &sidecar, &session.token)
                .await?;
        self.reporter.say(&Event::AgentRestarted { reason });
        Ok(())
    }

    /// Ends the session; afterwards nothing of it is in the engine.
    async fn finish(&self, mut session: Session, end: End) -> Result<(), Failure> {
        let began = Instant::now();
        let late_arrivals = matches!(end, End::FrontGone | End::Interrupted);
        let stop_app = matches!(end, End::FrontGone | End::Lost(_));
        if let End::Lost(failure) = end {
            self.reporter.say(&Event::Lost(failure));
        }
        let engine = session.engine.clone();
        let (left, stopped) = tokio::join!(leave(&mut session), async {
            match stop_app {
                true => clean::stop_app(&engine, &self.plan.session).await,
                false => Ok(()),
            }
        });
        if !left || stopped.is_err() {
            clean::clean(&engine, &self.plan.session).await?;
        }
        if late_arrivals {
            tokio::time::sleep(LATE_ARRIVALS).await;
            clean::clean(&engine, &self.plan.session).await?;
        }
        self.reporter.say(&Event::Cleaned { took: millis(began.elapsed()) });
        Ok(())
    }
}

impl End {
    fn of(heard: Heard) -> Self {
        match heard {
            Heard::Command(Command::End) => Self::App,
            Heard::Command(Command::EndInterrupted) => Self::Interrupted,
            Heard::Gone => Self::FrontGone,
            Heard::Told => Self::Lost(Failure::new("the session's keeper was told to stop")),
        }
    }
}

/// Has both containers leave; whether they did.
async fn leave(session: &mut Session) -> bool {
    let Session { engine, proxy, agent, .. } = session;
    let proxy_id = proxy.id.clone();
    let both = async {
        tokio::join!(clean::removed(engine, &proxy_id), async {
            proxy.leave().await;
            proxy.ended().await;
            // The agent would wait a while for another proxy; it has nothing to undo.
            clean::remove(engine, &agent.id).await
        })
    };
    timeout(LEAVING, both).await.is_ok_and(|((), agent)| agent.is_ok())
}

/// The end of all of the session's app containers.
async fn apps_end(engine: &Engine, plan: &Plan) {
    while let Ok(apps) = clean::running_apps(engine, &plan.session).await {
        match apps.first() {
            Some(app) => clean::not_running(engine, app).await,
            None => return,
        }
    }
}

fn sidecar_ended(last_words: &[String]) -> Failure {
    let failure = Failure::new("the sidecar ended, and the app's network with it");
    last_words.iter().fold(failure, Failure::because)
}

/// When agents died.
#[derive(Default)]
struct Deaths(VecDeque<Instant>);

impl Deaths {
    fn one_too_many(&mut self) -> bool {
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
