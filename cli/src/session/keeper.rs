//! The process that owns the session's containers, from the first to the last.

mod ending;
mod front;
mod stopping;

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use mirrord_protocol::control::{ProxyEvent, Target};
use nix::sys::signal::SigSet;
use tokio::sync::watch;

use self::ending::End;
use self::front::{Front, Heard};
use self::stopping::{Came, Stopping};
use super::bring_up::{self, BringUp, Session};
use super::containers::Said;
use super::desk::{self, Asked, Desk, Request};
use super::events::{Event, Reporter};
use super::far::{Far, FarSaid};
use super::here;
use super::plan::{Command, Plan};
use super::plane::Plane;
use super::record::{App, Record};
use super::standing::{self, Caller, Going};
use crate::engine::apps::{self, Apps};
use crate::engine::containers::Role;
use crate::engine::{Engine, clean, podman};
use crate::failure::Failure;

/// How long docker's client may take to see that its container has ended.
const CLIENT: Duration = Duration::from_secs(5);
/// How long a process may take to end that is told to, and killed after ten seconds.
const PROCESS: Duration = Duration::from_secs(15);

/// When others are swept: the engine is busy with the app before that.
const SWEEP: Duration = Duration::from_secs(1);

/// Runs the keeper: standard input is the front's, standard output goes to it.
pub fn run() -> ExitCode {
    close_inherited();
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
            Reporter::default().say(&Event::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

/// Closes what the front itself was given by others, who may wait for its end or hold a lock by it.
fn close_inherited() {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|number: &i32| *number > 2).collect::<Vec<_>>() {
        let _ = nix::unistd::close(number);
    }
}

async fn keep() -> io::Result<()> {
    let mut front = Front::new()?;
    let Some(mut plan) = front.plan().await? else {
        return Ok(());
    };
    let reporter = &Reporter { record: RefCell::new(Record::of(&plan)) };
    let service = match podman::Service::start_for(&mut plan.endpoint).await {
        Ok(service) => service,
        Err(failure) => {
            reporter.say(&Event::Failed(failure));
            return Ok(());
        }
    };
    let end = Keeper { plan: &plan, reporter, front }.keep().await;
    if let Some(service) = service {
        service.end().await;
    }
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
            preloaded: RefCell::default(),
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
            Ok(session) => self.keep_up(session).await,
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

    /// Keeps a session until it ends, and answers whoever asks for it.
    async fn keep_up(&mut self, mut session: Session) -> Result<(), Failure> {
        let mut stopping = Stopping::default();
        let mut desk = Desk::open(&self.plan.session)
            .inspect_err(|error| {
                let message = format!("'mirrord status' does not know this session: {error}");
                self.reporter.say(&Event::Warning { message });
            })
            .ok();
        let end = self.serve(&mut session, &mut desk, &mut stopping).await;
        drop(desk);
        let lost = matches!(end, End::Lost(_));
        let ended = self.finish(session, end).await;
        desk::tell_the_end(stopping.waiting, &ended).await;
        if !lost && ended.is_ok() {
            self.reporter.record.borrow_mut().forget();
        }
        ended
    }

    /// Keeps the session until it ends, and says why it does.
    async fn serve(
        &mut self,
        session: &mut Session,
        desk: &mut Option<Desk>,
        stopping: &mut Stopping,
    ) -> End {
        let Session { engine, proxy, far, described, .. } = session;
        let engine = engine.as_ref();
        let plan = self.plan;
        let apps = &plan.apps(&proxy.id);
        let (caller_tx, caller) = callers(plan);
        let mut app_end = pin!(apps_end(engine, apps, caller));
        let mut app_removed = pin!(apps_removed(engine, plan));
        let mut sweep = pin!(sweep_others(engine, plan));
        let (mut staying, mut swept) = (false, false);
        loop {
            tokio::select! {
                heard = self.front.next() => match heard {
                    Heard::Command(_) if stopping.has_begun() => {
                        let late = stop_late(engine, plan, apps);
                        return End::stopped(stopping.app().await && late.await);
                    }
                    Heard::Command(Command::Stay) => staying = self.detach(),
                    Heard::Command(command) if self.app_goes_on(engine, apps, command).await => {
                        staying = self.detach();
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
                    Said::Ended => return End::Lost(proxy_ended(plan, proxy.last_words())),
                },
                said = far.next() => match said {
                    FarSaid::Event(event) => self.reporter.say(&event),
                    FarSaid::Lost(failure) => return End::Lost(failure),
                },
                asked = asked(desk) => match (asked.request, &caller_tx, &mut *desk) {
                    (Request::Again(caller), Some(tx), Some(desk)) if !stopping.has_begun() => {
                        tx.send_replace(caller);
                        let going = going(plan, far, described.as_ref());
                        desk.answer(asked, async move { going });
                    }
                    _ => self.answer(asked, engine, apps, desk, stopping),
                },
                came = stopping.next() => match came {
                    Came::App(true) if !staying => {}
                    Came::App(stopped) => return End::stopped(stopped),
                    Came::TooLate => return End::Interrupted,
                },
                // What others left is no concern of this session's user.
                () = &mut sweep, if !swept => swept = true,
                () = &mut app_end, if staying => return End::App,
                // What is ours leaves while the engine removes the app.
                () = &mut app_removed => return End::App,
            }
        }
    }

    /// Answers, or begins to do what is asked for.
    fn answer(
        &self,
        asked: Asked,
        engine: Option<&Engine>,
        apps: &Apps,
        desk: &mut Option<Desk>,
        stopping: &mut Stopping,
    ) {
        let (engine, apps) = (engine.cloned(), apps.clone());
        match (asked.request, desk) {
            (Request::Status, Some(desk)) => {
                let mut status = self.reporter.record.borrow().status.clone();
                desk.answer(asked, async move {
                    let apps = match &engine {
                        Some(engine) => apps::all(engine, &apps).await.unwrap_or_default(),
                        None => Vec::new(),
                    };
                    status.app = App::with(status.app, apps.into_iter().next());
                    status
                });
            }
            (Request::Status, None) | (Request::Again(_), _) => {}
            (Request::Stop, _) => {
                stopping.waiting.push(asked.by);
                if stopping.has_begun() {
                    return;
                }
                self.reporter.say(&Event::Stopping);
                match engine.filter(|_| self.plan.plane.here().is_none()) {
                    Some(engine) => {
                        let app = async move { apps::stop(&engine, &apps).await.is_ok() };
                        stopping.begin(app, CLIENT);
                    }
                    // The front ends its own child.
                    None => stopping.begin(async { true }, PROCESS),
                }
            }
        }
    }

    /// From now on the session is the container's, not the command's.
    fn detach(&self) -> bool {
        let noted = match desk::make_folder() {
            Ok(folder) => self.reporter.record.borrow_mut().detach(&folder),
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            let message = format!("what happens in the session is not written down: {error}");
            self.reporter.say(&Event::Warning { message });
        }
        self.reporter.say(&Event::Detached);
        true
    }

    /// Whether the app runs on without docker's client, or is just being restarted.
    async fn app_goes_on(&self, engine: Option<&Engine>, whose: &Apps, command: Command) -> bool {
        let Some(engine) = engine.filter(|_| self.plan.plane.here().is_none()) else {
            return false;
        };
        match apps::all(engine, whose).await {
            Ok(apps) if apps.iter().any(|app| app.runs) => true,
            Ok(apps) if apps.is_empty() || command != Command::End => false,
            Ok(_) => {
                apps::was_told_to_end(engine, whose).await && apps::comes_back(engine, whose).await
            }
            Err(_) => false,
        }
    }
}

async fn asked(desk: &mut Option<Desk>) -> Asked {
    match desk {
        Some(desk) => desk.next().await,
        None => std::future::pending().await,
    }
}

/// Removes what others left, in the engine and on this machine.
async fn sweep_others(engine: Option<&Engine>, plan: &Plan) {
    tokio::time::sleep(SWEEP).await;
    here::sweep();
    desk::sweep();
    if let Some(engine) = engine {
        let _ = clean::sweep(engine, &plan.session).await;
    }
}

/// The end of all of the session's app containers.
async fn apps_end(engine: Option<&Engine>, apps: &Apps, caller: Option<watch::Receiver<Caller>>) {
    match (engine, caller) {
        (Some(engine), Some(caller)) => standing::end(engine, apps, caller).await,
        (Some(engine), None) => apps::end(engine, apps).await,
        (None, _) => std::future::pending().await,
    }
}

/// The end of an app that nothing can start again, and without which all that is ours can go: a
/// volume of the app's goes after it, and so does a sidecar of podman's.
async fn apps_removed(engine: Option<&Engine>, plan: &Plan) {
    let first = plan.app_removes && !plan.plane.loads_layer(&plan.layer);
    match engine.filter(|engine| first && !engine.is_podman()) {
        Some(engine) => apps::removed(engine, &plan.session).await,
        None => std::future::pending().await,
    }
}

/// Who starts the app, if that is a command of compose.
fn callers(plan: &Plan) -> (Option<watch::Sender<Caller>>, Option<watch::Receiver<Caller>>) {
    plan.standing.as_ref().map(|standing| watch::channel(standing.caller)).unzip()
}

/// What a command of compose is told that asks for the session again.
fn going(plan: &Plan, far: &Far, described: Option<&Target>) -> Option<Going> {
    let (standing, target) = (plan.standing.as_ref()?, described?);
    Some(Going {
        session: plan.session.clone(),
        asked: standing.asked.clone(),
        name: far.target().to_owned(),
        target: target.clone(),
        pinned: far.pinned(),
    })
}

/// Stops what docker's client started after the session was told to end; whether it could.
async fn stop_late(engine: Option<&Engine>, plan: &Plan, apps: &Apps) -> bool {
    match engine.filter(|_| plan.plane.here().is_none()) {
        Some(engine) => apps::stop(engine, apps).await.is_ok(),
        None => true,
    }
}

fn proxy_ended(plan: &Plan, last_words: &[String]) -> Failure {
    let failure = Failure::new(match plan.plane.here() {
        Some(_) => "the session's proxy ended",
        None => "the sidecar ended, and the app's network with it",
    });
    last_words.iter().fold(failure, Failure::because)
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
