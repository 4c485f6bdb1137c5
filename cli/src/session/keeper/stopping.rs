//! A session that somebody wants to end: its app first, in its own time, then all that is ours.

use std::pin::Pin;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};

/// How far it is.
#[derive(Default)]
enum Step {
    /// Nobody wants it to end.
    #[default]
    Wanted,
    /// The app is being stopped.
    App(Pin<Box<dyn Future<Output = bool>>>),
    /// The front has until then to hear of the app's end.
    Front(Instant),
}

/// Who wants the session to end, and how far that is.
#[derive(Default)]
pub struct Stopping {
    /// Those who wait for it.
    pub waiting: Vec<UnixStream>,
    step: Step,
    patience: Duration,
}

/// What has come of it.
pub enum Came {
    /// The app was stopped, or could not be.
    App(bool),
    /// The front does not say that its client has ended.
    TooLate,
}

impl Stopping {
    /// Whether anybody wants the end.
    pub fn has_begun(&self) -> bool {
        !matches!(self.step, Step::Wanted)
    }

    /// Begins to stop the app; the front may then take so long.
    pub fn begin(&mut self, app: impl Future<Output = bool> + 'static, patience: Duration) {
        self.step = Step::App(Box::pin(app));
        self.patience = patience;
    }

    /// What comes next of it. Can be cancelled without loss.
    pub async fn next(&mut self) -> Came {
        match &mut self.step {
            Step::Wanted => std::future::pending().await,
            Step::App(stopped) => {
                let stopped = stopped.await;
                self.step = Step::Front(Instant::now() + self.patience);
                Came::App(stopped)
            }
            Step::Front(deadline) => {
                sleep_until(*deadline).await;
                Came::TooLate
            }
        }
    }

    /// Waits until the app is stopped; whether it could be.
    pub async fn app(&mut self) -> bool {
        match &mut self.step {
            Step::App(stopped) => stopped.await,
            _ => true,
        }
    }
}
