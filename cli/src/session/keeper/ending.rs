//! A session's end: what is ours leaves, and the app with it where nobody else ends it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Keeper;
use super::front::Heard;
use crate::engine::connect::EngineError;
use crate::engine::{apps, clean};
use crate::failure::Failure;
use crate::session::bring_up::Session;
use crate::session::events::{Event, millis};
use crate::session::plan::Command;
use crate::session::remote;

/// How long sidecar and agent may take to leave when told to.
const LEAVING: Duration = Duration::from_secs(2);
/// How long an engine that is started again may take to answer, and how often it is asked.
const RETURN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);

/// Why a session ends.
pub enum End {
    /// The app has ended.
    App,
    /// The app may still be about to be created.
    Interrupted,
    /// The front died.
    FrontGone,
    /// The session can't go on.
    Lost(Failure),
}

impl End {
    /// What was heard from outside.
    pub fn of(heard: Heard) -> Self {
        match heard {
            Heard::Command(Command::End | Command::EndSignalled | Command::Stay) => Self::App,
            Heard::Command(Command::EndInterrupted) => Self::Interrupted,
            Heard::Gone => Self::FrontGone,
            Heard::Told => Self::Lost(Failure::new("the session's keeper was told to stop")),
        }
    }

    /// The app was stopped because somebody wants the session to end.
    pub fn stopped(well: bool) -> Self {
        if well { Self::App } else { Self::Interrupted }
    }
}

impl Keeper<'_> {
    /// Removes what a session that never was has left.
    pub(super) async fn sweep(&self, late_arrivals: bool) -> Result<(), Failure> {
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

    /// Ends the session; afterwards nothing of it is in the engine.
    pub(super) async fn finish(&self, mut session: Session, end: End) -> Result<(), Failure> {
        let began = Instant::now();
        let late_arrivals =
            session.far.is_unsettled() || matches!(end, End::FrontGone | End::Interrupted);
        let stop_app = matches!(end, End::FrontGone | End::Lost(_));
        if let End::Lost(failure) = end {
            self.reporter.say(&Event::Lost(failure));
        }
        let engine = session.engine.clone();
        let apps = self.plan.apps(&session.proxy.id);
        let stop = async {
            match &engine {
                Some(engine) if stop_app => apps::stop(engine, &apps).await,
                _ => Ok(()),
            }
        };
        let (left, stopped) = match &engine {
            // Podman removes no container whose network another one has joined.
            Some(engine) if engine.is_podman() => {
                let stopped = stop.await;
                (leave(&mut session).await, stopped)
            }
            _ => tokio::join!(leave(&mut session), stop),
        };
        match &engine {
            Some(engine) if late_arrivals => {
                once_it_answers(|| clean::clean_late_arrivals(engine, &self.plan.session)).await?;
            }
            Some(engine) if !left || stopped.is_err() || engine.is_podman() => {
                once_it_answers(|| clean::clean(engine, &self.plan.session)).await?;
            }
            Some(engine) if self.plan.plane.loads_layer(&self.plan.layer) => {
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

/// Does what an engine must do that may just be started again.
async fn once_it_answers<F>(mut act: impl FnMut() -> F) -> Result<(), EngineError>
where
    F: Future<Output = Result<(), EngineError>>,
{
    let deadline = Instant::now() + RETURN;
    loop {
        match act().await {
            Err(EngineError::Unreachable { .. } | EngineError::Other { .. })
                if Instant::now() < deadline =>
            {
                sleep(RETRY).await;
            }
            result => return result,
        }
    }
}

/// Has sidecar and agents leave; whether they did.
async fn leave(session: &mut Session) -> bool {
    let Session { engine, proxy, far, folder, .. } = session;
    let deadline = Instant::now() + LEAVING;
    proxy.leave().await;
    // The last bytes of the app may still be on their way to the agent.
    let _ = timeout_at(deadline, proxy.left()).await;
    let gone = async {
        match engine {
            // It may have to be removed after the app.
            Some(engine) if engine.is_podman() => clean::not_running(engine, &proxy.id).await,
            Some(engine) if folder.is_none() => clean::removed(engine, &proxy.id).await,
            _ => {
                // Its output ends with it, or with the engine.
                proxy.ended().await;
                match engine {
                    Some(engine) => clean::not_running(engine, &proxy.id).await,
                    None => true,
                }
            }
        }
    };
    let (gone, left) = tokio::join!(timeout_at(deadline, gone), far.leave());
    gone == Ok(true) && left
}
