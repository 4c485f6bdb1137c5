//! A session that stands for a service of a compose project, which compose asks for and whose app
//! compose starts.
//!
//! ```text
//!   compose ── up ──► provider ── plan, then Stay ──► keeper ══► sidecar PROJECT-SERVICE
//!      │                 └─────── Again, at a second up ──►           ▲
//!      └── creates the app, in the network of ──────────────────────┘
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mirrord_protocol::control::Target;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::SessionId;
use crate::engine::Engine;
use crate::engine::apps::{self, App, Apps};
use crate::lock::Pinned;

/// On the sidecar of a service: the project.
pub const PROJECT_LABEL: &str = "mirrord.compose.project";
/// On the sidecar of a service: the service.
pub const SERVICE_LABEL: &str = "mirrord.compose.service";

/// How often it is looked whether compose has started the app.
const PAUSE: Duration = Duration::from_millis(200);
/// How long compose may take from its end to its app's beginning, in seconds.
const GRACE: u64 = 3;

/// Which service that is; one of no project has its sidecar's whole name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The project, or nothing.
    pub project: String,
    /// The name.
    pub service: String,
}

/// The service that a session stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which one.
    pub place: Place,
    /// What was asked for, as a sum: who asks for the same again keeps the session.
    pub asked: String,
    /// The command of compose that asked for it.
    pub caller: Caller,
}

impl Place {
    /// The sidecar's name, by which the app joins its network.
    pub fn sidecar(&self) -> String {
        match self.project.as_str() {
            "" => self.service.clone(),
            project => format!("{project}-{}", self.service),
        }
    }

    /// The sidecar's own labels.
    pub fn labels(&self) -> [(String, String); 2] {
        [
            (PROJECT_LABEL.to_owned(), self.project.clone()),
            (SERVICE_LABEL.to_owned(), self.service.clone()),
        ]
    }
}

/// A process of this machine, told from later ones of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Its number.
    pub pid: u32,
    /// When it began, as the kernel counts.
    pub began: u64,
    /// When it called, in seconds since 1970.
    pub called: i64,
    /// How long the app may take to begin once it has gone, in seconds.
    pub grace: u64,
}

impl Caller {
    /// The process of that number, which calls now.
    pub fn now(pid: u32) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let called = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Self { pid, began: began(pid).unwrap_or_default(), called, grace: GRACE }
    }

    /// The same, whose app may take that many seconds.
    pub fn with_grace(self, grace: u64) -> Self {
        Self { grace, ..self }
    }

    /// Whether it is there.
    fn lives(&self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

/// When a process began; none if it has ended (proc_pid_stat(5), field 22).
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| !matches!(state, "Z" | "X"))
}

/// What compose's app has to know of a session that goes on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Going {
    /// The session.
    pub session: SessionId,
    /// What was asked for.
    pub asked: String,
    /// The target, as the user names it.
    pub name: String,
    /// The target.
    pub target: Target,
    /// What of it a run can depend on.
    pub pinned: Pinned,
}

/// Waits until no app of the session runs, nor is about to be started by a command of compose that
/// asked for the session.
pub async fn end(engine: &Engine, whose: &Apps, mut callers: watch::Receiver<Caller>) {
    loop {
        let caller = *callers.borrow_and_update();
        tokio::select! {
            () = attended(engine, whose, caller) => return,
            changed = callers.changed() => if changed.is_err() {
                return attended(engine, whose, caller).await;
            },
        }
    }
}

/// The same, as far as one command is concerned.
async fn attended(engine: &Engine, whose: &Apps, caller: Caller) {
    let has_run = |app: &App| !app.waits && app.made >= caller.called;
    begun(engine, whose, caller, &|apps| apps.iter().any(has_run)).await;
    loop {
        apps::end(engine, whose).await;
        let waits = |apps: &[App]| apps.iter().any(|app| app.waits);
        let waiting = apps::all(engine, whose).await.is_ok_and(|apps| waits(&apps));
        if !waiting || !caller.lives() {
            return;
        }
        let over = |apps: &[App]| apps.iter().any(|app| app.runs) || !waits(apps);
        begun(engine, whose, caller, &over).await;
    }
}

/// Waits until compose has started an app, or no longer can.
async fn begun(engine: &Engine, whose: &Apps, caller: Caller, has_begun: &dyn Fn(&[App]) -> bool) {
    let mut deadline = None;
    loop {
        let apps = apps::all(engine, whose).await.unwrap_or_default();
        // An app of before that nobody is about to make anew is as good.
        if has_begun(&apps) || (apps.iter().any(|app| app.runs) && !caller.lives()) {
            return;
        }
        match deadline {
            None if !caller.lives() => {
                deadline = Some(Instant::now() + Duration::from_secs(caller.grace));
            }
            Some(deadline) if Instant::now() >= deadline => return,
            _ => {}
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let own = Caller::now(std::process::id());
        assert!(own.lives());
        assert!(!Caller { began: own.began + 1, ..own }.lives());
    }

    #[test]
    fn a_child_that_has_ended_does_not_live() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let caller = Caller::now(child.id());
        assert!(caller.lives());
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(!caller.lives());
    }
}
