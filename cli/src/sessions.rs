//! `mirrord status` and `mirrord stop`: the sessions of this machine.
//!
//! ```text
//!   gather   from keepers' sockets, from files of lost sessions, from the engine's labels
//!   table    how they are told
//! ```

mod gather;
mod table;

use clap::Args;

use self::gather::{Keeper, Session};
use crate::failure::{Failure, nearest};
use crate::list::Output;
use crate::output::write;
use crate::progress::Progress;
use crate::session::desk::{self, Request};
use crate::session::record::Status;

/// How sessions are told.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The form of the list
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
}

/// Which sessions end.
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    /// A session's id or the beginning of it, or the name or id of its app's container
    #[arg(value_name = "SESSION", required_unless_present = "all", conflicts_with = "all")]
    pub sessions: Vec<String>,
    /// All sessions of this user on this machine
    #[arg(long)]
    pub all: bool,
}

/// Tells which sessions there are.
///
/// # Errors
/// The list can't be made or written.
pub fn status(args: &StatusArgs, progress: &mut Progress) -> Result<(), Failure> {
    let sessions = runtime()?.block_on(gather::all(progress));
    let all: Vec<&Status> = sessions.iter().map(|session| &session.status).collect();
    let text = match args.output {
        Output::Table => table::of(&all),
        Output::Json => serde_json::to_string_pretty(&all).map_err(cannot)? + "\n",
        Output::Name => all.iter().map(|status| format!("{}\n", status.session)).collect(),
    };
    write(&text)
}

/// Ends sessions, and says which; whether all of them are gone.
///
/// # Errors
/// One that was named is not there; then none is ended.
pub fn stop(args: &StopArgs, progress: &mut Progress) -> Result<bool, Failure> {
    runtime()?.block_on(async {
        let sessions = gather::all(progress).await;
        let chosen = match args.all {
            true => sessions.iter().filter(|session| session.is_ours()).collect(),
            false => choose(&sessions, &args.sessions)?,
        };
        let mut well = true;
        let ends = chosen.iter().map(async |session| (&session.status.session, end(session).await));
        for (id, end) in futures_util::future::join_all(ends).await {
            match end {
                Ok(()) => write(&format!("{id}\n"))?,
                Err(failure) => {
                    progress.failure(&failure);
                    well = false;
                }
            }
        }
        Ok(well)
    })
}

async fn end(session: &Session) -> Result<(), Failure> {
    let id = &session.status.session;
    let failed = |error: &dyn std::error::Error| {
        Failure::caused_by(format!("cannot end session {id}"), error)
    };
    match &session.keeper {
        Keeper::Here(socket) => {
            match desk::ask(socket, Request::Stop).await.map_err(|error| failed(&error))? {
                Some(answer) => serde_json::from_str(&answer).map_err(|error| failed(&error))?,
                // It has ended meanwhile.
                None => Ok(()),
            }
        }
        Keeper::Gone(log) => gather::clean(&session.status, log.as_deref()).await,
        Keeper::Elsewhere => gather::clean(&session.status, None).await,
    }
}

/// The sessions that are meant, each once.
fn choose<'a>(sessions: &'a [Session], words: &[String]) -> Result<Vec<&'a Session>, Failure> {
    let mut chosen: Vec<&Session> = Vec::new();
    for word in words {
        let session = one(sessions, word)?;
        if !chosen.iter().any(|other| other.status.session == session.status.session) {
            chosen.push(session);
        }
    }
    Ok(chosen)
}

fn one<'a>(sessions: &'a [Session], word: &str) -> Result<&'a Session, Failure> {
    let exact = |session: &&Session| {
        let Status { session, app, .. } = &session.status;
        session == word || app.container.as_deref() == Some(word) || app.id.as_deref() == Some(word)
    };
    if let Some(session) = sessions.iter().find(exact) {
        return Ok(session);
    }
    let begins = |session: &&Session| {
        let Status { session, app, .. } = &session.status;
        !word.is_empty()
            && (session.starts_with(word) || app.id.as_ref().is_some_and(|id| id.starts_with(word)))
    };
    match sessions.iter().filter(begins).collect::<Vec<_>>().as_slice() {
        [session] => Ok(session),
        [] => Err(unknown(sessions, word)),
        several => {
            let ids: Vec<&str> =
                several.iter().map(|session| session.status.session.as_str()).collect();
            Err(Failure::new(format!("{word:?} is the beginning of several sessions"))
                .because(ids.join(", "))
                .hint("give more of the id"))
        }
    }
}

fn unknown(sessions: &[Session], word: &str) -> Failure {
    let names = sessions.iter().flat_map(|session| {
        let Status { session, app, .. } = &session.status;
        [Some(session.as_str()), app.container.as_deref()].into_iter().flatten()
    });
    let hint = match nearest(word, names).first() {
        Some(near) => format!("did you mean {near}? see 'mirrord status'"),
        None => "see 'mirrord status'".to_owned(),
    };
    Failure::new(format!("there is no session {word:?}")).hint(hint)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)
}

fn cannot(error: impl std::error::Error) -> Failure {
    Failure::caused_by("cannot tell the sessions", &error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::record::App;

    fn session(id: &str, container: &str, app: &str) -> Session {
        let app = App {
            container: Some(container.to_owned()),
            id: Some(app.to_owned()),
            ..App::default()
        };
        let status = Status { session: id.to_owned(), app, ..Status::default() };
        Session { status, keeper: Keeper::Elsewhere }
    }

    #[test]
    fn a_session_is_named_by_as_much_as_tells_it_from_others() {
        let sessions = [session("1a2b", "web", "f00d"), session("1a3c", "1a", "beef")];
        let found = |word: &str| one(&sessions, word).map(|found| found.status.session.as_str());
        assert_eq!(found("1a2"), Ok("1a2b"));
        assert_eq!(found("web"), Ok("1a2b"));
        assert_eq!(found("1a"), Ok("1a3c"), "a whole name counts more");
        assert_eq!(found("bee"), Ok("1a3c"));
        let several = found("1").expect_err("two of them");
        assert_eq!(several.causes, ["1a2b, 1a3c"]);
        let none = found("wbe").expect_err("none");
        assert_eq!(none.hint.as_deref(), Some("did you mean web? see 'mirrord status'"));
        assert!(found("").is_err());
    }
}
