//! The process that owns the session's containers, from the first to the last.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mirrord_protocol::control::ProxyEvent;
use nix::sys::signal::SigSet;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use super::bring_up::{self, BringUp, Session};
use super::containers::Said;
use super::events::{Event, Reporter, millis};
use super::far::FarSaid;
use super::plan::{Command, Plan};
use super::plane::Plane;
use super::{here, remote};
use crate::engine::containers::Role;
use crate::engine::{Engine, clean};
use crate::failure::Failure;

/// How long sidecar and agent may take to leave when told to.
const LEAVING: Duration = Duration::from_secs(2);

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
            Reporter.say(&Event::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

async fn keep() -> io::Result<()> {
    let mut front = Front::new()?;
    let Some(plan) = front.plan().await? else {
        return Ok(());
    };
    let reporter = &Reporter;
    let end = Keeper { plan: &plan, reporter, front }.keep().await;
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
        let (begun, no_netns) = (Cell::new(false), Cell::new(false));
        let up = BringUp {
            plan: self.plan,
            reporter: self.reporter,
            begun: &begun,
            no_netns: &no_netns,
            refusals: Vec::new(),
            unwanted,
        };
        let mut up = pin!(up.run());
        let brought = tokio::select! {
            brought = &mut up => brought,
            heard = self.front.next() => {
                unwanted_tx.send_replace(true);
                match up.await {
                    Ok(session) => return self.finish(session, End::of(heard)).await,
                    Err(_) if !begun.get() => return Ok(()),
                    Err(_) => {
                        let late_arrivals = heard == Heard::Gone || self.plan.is_remote();
                        return self.sweep(late_arrivals).await;
                    }
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
                self.reporter.say(&match self.plan.plane {
                    Plane::Netns { or_layer: true } if no_netns.get() => Event::NoNetns(failure),
                    _ => Event::Failed(failure),
                });
                swept
            }
        }
    }

    /// Removes what a session that never was has left.
    async fn sweep(&self, late_arrivals: bool) -> Result<(), Failure> {
        let began = Instant::now();
        let engine = self.plan.engine()?;
        let (here, there) = tokio::join!(
            async {
                match (&engine, late_arrivals) {
                    (None, _) => Ok(()),
                    (Some(engine), true) => {
                        clean::clean_late_arrivals(engine, &self.plan.session).await
                    }
                    (Some(engine), false) => {
                        clean::clean_any_version(engine, &self.plan.session).await
                    }
                }
            },
            remote::clean(self.plan, late_arrivals),
        );
        here?;
        there?;
        self.reporter.say(&Event::Cleaned { took: millis(began.elapsed()) });
        Ok(())
    }

    /// Keeps the session until it ends, and says why it does.
    async fn serve(&mut self, session: &mut Session) -> End {
        let Session { engine, proxy, far, .. } = session;
        let engine = engine.as_ref();
        let plan = self.plan;
        let mut app_end = pin!(apps_end(engine, plan));
        let mut sweep = pin!(sweep_others(engine, plan));
        let (mut staying, mut swept) = (false, false);
        loop {
            tokio::select! {
                heard = self.front.next() => match heard {
                    Heard::Command(_) if self.app_goes_on(engine).await => {
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
                said = far.next() => match said {
                    FarSaid::Event(event) => self.reporter.say(&event),
                    FarSaid::Lost(failure) => return End::Lost(failure),
                },
                // What others left is no concern of this session's user.
                () = &mut sweep, if !swept => swept = true,
                () = &mut app_end, if staying => return End::App,
            }
        }
    }

    async fn app_goes_on(&self, engine: Option<&Engine>) -> bool {
        let Some(engine) = engine.filter(|_| self.plan.plane.here().is_none()) else {
            return false;
        };
        clean::running_apps(engine, &self.plan.session).await.is_ok_and(|apps| !apps.is_empty())
    }

    /// Ends the session; afterwards nothing of it is in the engine.
    async fn finish(&self, mut session: Session, end: End) -> Result<(), Failure> {
        let began = Instant::now();
        let late_arrivals =
            session.far.is_unsettled() || matches!(end, End::FrontGone | End::Interrupted);
        let stop_app = matches!(end, End::FrontGone | End::Lost(_));
        if let End::Lost(failure) = end {
            self.reporter.say(&Event::Lost(failure));
        }
        let engine = session.engine.clone();
        let (left, stopped) = tokio::join!(leave(&mut session), async {
            match &engine {
                Some(engine) if stop_app => clean::stop_app(engine, &self.plan.session).await,
                _ => Ok(()),
            }
        });
        match &engine {
            Some(engine) if late_arrivals => {
                clean::clean_late_arrivals(engine, &self.plan.session).await?;
            }
            Some(engine) if !left || stopped.is_err() => {
                clean::clean(engine, &self.plan.session).await?;
            }
            Some(engine) if self.plan.plane == Plane::Layer => {
                clean::remove_volumes(engine, &self.plan.session).await?;
            }
            _ => {}
        }
        if !left {
            remote::clean(self.plan, late_arrivals).await?;
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

/// Has sidecar and agents leave; whether they did.
async fn leave(session: &mut Session) -> bool {
    let Session { engine, proxy, far, folder } = session;
    let proxy_id = proxy.id.clone();
    let removed = async {
        match engine {
            Some(engine) if folder.is_none() => clean::removed(engine, &proxy_id).await,
            _ => {}
        }
    };
    let sidecar = async {
        tokio::join!(removed, async {
            proxy.leave().await;
            proxy.ended().await;
        })
    };
    // The last bytes of the app may still be on their way to the agent.
    let sidecar = timeout(LEAVING, sidecar).await;
    far.leave().await && sidecar.is_ok()
}

/// Removes what others left, in the engine and on this machine.
async fn sweep_others(engine: Option<&Engine>, plan: &Plan) {
    here::sweep();
    if let Some(engine) = engine {
        let _ = clean::sweep(engine, &plan.session).await;
    }
}

/// The end of all of the session's app containers.
async fn apps_end(engine: Option<&Engine>, plan: &Plan) {
    let Some(engine) = engine else { return };
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

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
