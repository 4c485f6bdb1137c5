//! Which sessions there are.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;

use crate::engine::apps::{self, Seen};
use crate::engine::connect::EngineError;
use crate::engine::endpoint::Sources;
use crate::engine::{Endpoint, Engine, clean, podman};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::session::SessionId;
use crate::session::desk::{self, Request};
use crate::session::record::{App, State, Status};

/// A session and where its keeper is.
pub struct Session {
    /// How it is.
    pub status: Status,
    /// Who keeps it.
    pub keeper: Keeper,
}

/// Who keeps a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Keeper {
    /// A process of this user, which can be asked there.
    Here(PathBuf),
    /// Nobody any more; what it wrote down is there, if it did.
    Gone(Option<PathBuf>),
    /// Another user, or another machine.
    Elsewhere,
}

impl Session {
    /// Whether it is, or was, kept by this user on this machine.
    pub fn is_ours(&self) -> bool {
        matches!(self.keeper, Keeper::Here(_) | Keeper::Gone(Some(_)))
    }
}

/// All sessions that can be seen, the oldest first.
pub async fn all(progress: &mut Progress) -> Vec<Session> {
    let found = desk::find();
    let (kept, engine) = tokio::join!(join_all(found.sockets.into_iter().map(kept)), seen());
    let mut sessions = Vec::new();
    for session in kept {
        match session {
            Ok(session) => sessions.extend(session),
            Err(failure) => progress.warning(&failure),
        }
    }
    let (endpoint, mut seen) = engine.unzip();
    let mut seen = seen.take().unwrap_or_default();
    for log in found.logs {
        if let Ok(status) = Status::read(&log)
            && !sessions.iter().any(|other| other.status.session == status.session)
        {
            sessions.push(lost(status, log, &seen));
        }
    }
    seen.retain(|id, _| !sessions.iter().any(|other| other.status.session == *id));
    let unknown = seen.into_iter().filter(|(_, seen)| seen.app.runs);
    sessions.extend(unknown.map(|(id, seen)| stranger(id, seen, endpoint.clone())));
    sessions.sort_by(|a, b| {
        let key =
            |session: &Session| (session.status.since.clone(), session.status.session.clone());
        key(a).cmp(&key(b))
    });
    sessions
}

async fn kept(socket: PathBuf) -> Result<Option<Session>, String> {
    let unheard = |why: String| format!("{} does not answer: {why}", socket.display());
    match desk::ask(&socket, Request::Status).await {
        Ok(Some(answer)) => {
            let status =
                serde_json::from_str(&answer).map_err(|error| unheard(error.to_string()))?;
            Ok(Some(Session { status, keeper: Keeper::Here(socket) }))
        }
        Ok(None) => Ok(None),
        Err(error) => Err(unheard(error.to_string())),
    }
}

/// One whose keeper was killed, or has given up.
fn lost(mut status: Status, log: PathBuf, seen: &Labels) -> Session {
    let app = seen.get(&status.session).map(|seen| seen.app.clone());
    status.app = std::mem::take(&mut status.app).with(app);
    Session { status, keeper: Keeper::Gone(Some(log)) }
}

/// One that the engine alone knows.
fn stranger(session: String, seen: Seen, engine: Option<Endpoint>) -> Session {
    let (state, keeper) = match seen.kept {
        true => (State::Elsewhere, Keeper::Elsewhere),
        false => (State::Lost, Keeper::Gone(None)),
    };
    let image = Some(seen.app.image.clone());
    let app = App { image, ..App::default() }.with(Some(seen.app));
    let status = Status { session, app, state, engine, ..Status::default() };
    Session { status, keeper }
}

type Labels = std::collections::HashMap<String, Seen>;

/// What the engine of the environment knows; one that does not answer knows nothing.
async fn seen() -> Option<(Endpoint, Labels)> {
    let endpoint = Sources::of_environment().resolve().ok()?;
    let engine = Engine::new(&endpoint).ok()?;
    let seen = match apps::of_all_sessions(&engine).await {
        Err(error) => apps::of_all_sessions(&engine.with_version_of(&error)?).await,
        seen => seen,
    };
    Some((endpoint, seen.ok()?))
}

/// Stops the app of a session that nobody keeps here, and removes what is left of it.
pub async fn clean(status: &Status, log: Option<&Path>) -> Result<(), Failure> {
    let session = SessionId::known(&status.session)
        .ok_or_else(|| Failure::new(format!("{:?} is no session's id", status.session)))?;
    let mut endpoint = status.engine.clone();
    let service = podman::Service::start_for(&mut endpoint).await?;
    if let Some(endpoint) = &endpoint {
        let engine = Engine::new(endpoint).map_err(Failure::from)?;
        clean::clean_any_version(&engine, &session).await.map_err(|error: EngineError| {
            Failure::from(error).hint("the session's file stays until its engine answers")
        })?;
    }
    if let Some(service) = service {
        service.end().await;
    }
    if let Some(log) = log {
        match std::fs::remove_file(log) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let doing = format!("cannot remove {}", log.display());
                return Err(Failure::caused_by(doing, &error));
            }
            _ => {}
        }
    }
    Ok(())
}
