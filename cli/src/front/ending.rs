//! The end of a session, as its front sees it.

use super::{Front, Keeping};
use crate::engine::{clean, podman};
use crate::session::events::Event;
use crate::session::plan::Command;
use crate::session::{here, remote};

impl Front<'_> {
    /// Has the session cleaned up, unless the app goes on without its client.
    pub(super) async fn end(&mut self, command: Command) {
        match self.keeping {
            Keeping::Killed => self.clean().await,
            Keeping::Alive | Keeping::Done => {
                self.keeper.end(command).await;
                self.drain().await;
            }
        }
    }

    pub(super) async fn drain(&mut self) {
        while let Some(event) = self.keeper.next().await {
            if matches!(event, Event::Detached) {
                let session = self.plan.session.to_string();
                let goes_on = match self.app.detaches {
                    true => format!(
                        "the container runs in the background, and session {session} with it"
                    ),
                    false => format!("the container goes on, and session {session} with it"),
                };
                let text = format!("{goes_on}; 'mirrord stop {session}' ends both");
                self.progress.detached(&session, &text);
                return;
            }
            self.tell(event);
        }
    }

    /// Cleans up in the place of a keeper that is gone.
    pub(super) async fn clean(&mut self) {
        let session = &self.plan.session;
        let mut plan = self.plan.clone();
        let cleaned = async {
            // The keeper's own is gone with it.
            let _service = podman::Service::start_for(&mut plan.endpoint).await?;
            let engine = plan.engine()?;
            let here = async {
                match &engine {
                    Some(engine) => clean::clean_late_arrivals(engine, session).await,
                    None => Ok(()),
                }
            };
            let (here, there) = tokio::join!(here, remote::clean(&plan, true));
            if let Some(here) = plan.plane.here() {
                here::remove(here);
            }
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
}
