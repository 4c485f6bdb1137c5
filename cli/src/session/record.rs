//! What is known of a session, for `mirrord status`; that of a detached one is also in a file, so
//! that its end can be told.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;
use mirrord_protocol::control::{IncomingMode, PortMapping, ProxyEvent, TargetIndex};
use serde::{Deserialize, Serialize};

use super::Plan;
use super::events::Event;
use super::plane::Plane;
use super::words::{Words, numbered};
use crate::engine::{Endpoint, apps};

/// How many events are remembered.
const REMEMBERED: usize = 20;
/// A file that is longer gets no more lines.
const LONGEST: u64 = 1 << 20;

/// A session as `mirrord status` tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub session: String,
    /// Whose place is taken, as `-t` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The target's namespace, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What runs there.
    pub app: App,
    /// Who redirects: `netns` or `layer`.
    pub plane: String,
    /// What happens to the target's traffic.
    pub incoming: Option<IncomingMode>,
    /// The target's ports that come to the app, as `--port` names them.
    pub ports: BTreeSet<String>,
    /// Since when, in UTC.
    pub since: String,
    /// How it is.
    pub state: State,
    /// Whether it goes on without the command that began it.
    pub detached: bool,
    /// The process that keeps it.
    pub keeper: u32,
    /// The engine that it needs, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<Endpoint>,
    /// What happened last.
    pub events: VecDeque<Told>,
}

/// What runs in the target's place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The container's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The container's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The container's image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The command's words, if they were given.
    pub command: Vec<String>,
}

/// How a session is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The tunnel stands.
    #[default]
    Up,
    /// A tunnel is being made anew.
    Reconnecting,
    /// It is about to end.
    Stopping,
    /// Its app may run, but nobody keeps the session any more.
    Lost,
    /// Somebody else keeps it: another user, or another machine.
    Elsewhere,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When, in UTC.
    pub at: String,
    /// In words.
    pub text: String,
    /// Whether the session ended by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends: bool,
    /// Whether it is a line of a log, for who reads the file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log: bool,
}

/// What a keeper knows of its session.
#[derive(Default)]
pub struct Record {
    /// As it is told.
    pub status: Status,
    cut: BTreeSet<TargetIndex>,
    log: Option<(PathBuf, File)>,
}

impl Record {
    /// Of a session that begins.
    pub fn of(plan: &Plan) -> Self {
        let plane = if plan.plane.is_netns() { "netns" } else { "layer" };
        let here = matches!(plan.plane, Plane::Here(_));
        let app = App {
            image: (!here).then(|| plan.app_image.clone()),
            command: plan.app_words.clone(),
            ..App::default()
        };
        let status = Status {
            session: plan.session.to_string(),
            target: plan.target.as_ref().map(ToString::to_string),
            namespace: plan.cluster.namespace.clone(),
            app,
            plane: plane.to_owned(),
            incoming: Some(plan.incoming.mode),
            since: now(),
            keeper: std::process::id(),
            engine: plan.endpoint.clone(),
            ..Status::default()
        };
        Self { status, ..Self::default() }
    }

    /// Takes note of an event.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Proxy { said } => self.hear_proxy(said),
            Event::Stopping => self.status.state = State::Stopping,
            Event::Lost(_) => self.status.state = State::Lost,
            _ => {}
        }
        let told = match (event, Words::of(event)) {
            (Event::Log { from, line }, _) => {
                return self.write(&Told { log: true, ..Told::now(format!("{from}: {line}")) });
            }
            (_, Some(Words::Note(text) | Words::Warning(text))) => Told::now(text),
            (_, Some(Words::Failure(failure))) => {
                let causes = failure.causes.into_iter().map(|cause| format!(": {cause}"));
                let text = causes.fold(failure.sentence, |text, cause| text + &cause);
                Told { ends: true, ..Told::now(text) }
            }
            (_, Some(Words::Detail(_)) | None) => return,
        };
        self.write(&told);
        self.status.events.push_back(told);
        if self.status.events.len() > REMEMBERED {
            self.status.events.pop_front();
        }
    }

    fn hear_proxy(&mut self, said: &ProxyEvent) {
        let ports = &mut self.status.ports;
        match said {
            ProxyEvent::Subscribed(port) => drop(ports.insert(as_option(*port))),
            ProxyEvent::Unsubscribed(port) => drop(ports.remove(&as_option(*port))),
            ProxyEvent::Disconnected { target, .. } => drop(self.cut.insert(*target)),
            ProxyEvent::Reconnected { target, .. } => drop(self.cut.remove(target)),
            ProxyEvent::Restarted => {
                ports.clear();
                self.cut.insert(0);
            }
            ProxyEvent::Ready(_) => self.cut.clear(),
            _ => {}
        }
        match (self.status.state, self.cut.is_empty()) {
            (State::Up, false) => self.status.state = State::Reconnecting,
            (State::Reconnecting, true) => self.status.state = State::Up,
            _ => {}
        }
    }

    /// The session goes on without the command that began it: it is written down from now on.
    pub fn detach(&mut self, folder: &Path) -> io::Result<()> {
        self.status.detached = true;
        let path = log_path(folder, &self.status.session);
        let mut options = OpenOptions::new();
        let mut log = options.append(true).create_new(true).mode(0o600).open(&path)?;
        // Who reads it sees by the lock that its writer lives.
        log.lock()?;
        let line = serde_json::to_string(&self.status)? + "\n";
        log.write_all(line.as_bytes()).inspect_err(|_| {
            // A file that does not say whose it is says nothing.
            let _ = std::fs::remove_file(&path);
        })?;
        self.log = Some((path, log));
        Ok(())
    }

    /// The session has ended as it should: nothing of it needs to be told.
    pub fn forget(&mut self) {
        if let Some((path, _)) = self.log.take() {
            let _ = std::fs::remove_file(path);
        }
    }

    fn write(&mut self, told: &Told) {
        let Some((_, log)) = &mut self.log else { return };
        let fits = log.metadata().is_ok_and(|meta| meta.len() < LONGEST);
        if (fits || told.ends)
            && let Ok(line) = serde_json::to_string(told)
        {
            let _ = log.write_all((line + "\n").as_bytes());
        }
    }
}

impl App {
    /// As the engine knows it, and as it was asked for.
    pub fn with(self, seen: Option<apps::App>) -> Self {
        match seen {
            Some(app) => Self { container: Some(app.name), id: Some(app.id), ..self },
            None => self,
        }
    }
}

impl Status {
    /// As a file tells it whose session nobody answers for: it ends, or has ended.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let ends = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        let text = io::read_to_string(&file)?;
        let mut lines = text.lines();
        let mut status: Self = serde_json::from_str(lines.next().unwrap_or_default())?;
        let told = lines.filter_map(|line| serde_json::from_str::<Told>(line).ok());
        status.events.extend(told.filter(|told| !told.log));
        if !ends && !status.events.iter().any(|told| told.ends) {
            let text = "the session's keeper was killed".to_owned();
            let at = file.metadata()?.modified().ok().and_then(|at| at.try_into().ok());
            let at = at.map_or_else(now, to_second);
            status.events.push_back(Told { at, text, ends: true, log: false });
        }
        let older = status.events.len().saturating_sub(REMEMBERED);
        status.events.drain(..older);
        status.state = if ends { State::Stopping } else { State::Lost };
        status.ports.clear();
        Ok(status)
    }
}

impl Told {
    /// Something that happens now.
    pub fn now(text: String) -> Self {
        Self { at: now(), text, ends: false, log: false }
    }
}

/// The file of a detached session.
fn log_path(folder: &Path, session: &str) -> PathBuf {
    folder.join(format!("{session}.log"))
}

/// Now, in UTC, to the second.
fn now() -> String {
    to_second(Timestamp::now())
}

fn to_second(moment: Timestamp) -> String {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment).to_string()
}

fn as_option(port: PortMapping) -> String {
    match port.local == port.remote {
        true => numbered(port),
        false => format!("{}:{}", port.local, numbered(port)),
    }
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::control::Protocol;

    use super::*;
    use crate::failure::Failure;

    fn record() -> Record {
        Record::of(&Plan::example("unix:///x".to_owned()))
    }

    fn proxy(said: ProxyEvent) -> Event {
        Event::Proxy { said }
    }

    #[test]
    fn the_state_and_the_ports_follow_the_events() {
        let mut record = record();
        let port = PortMapping { protocol: Protocol::Tcp, local: 3000, remote: 80 };
        record.hear(&proxy(ProxyEvent::Subscribed(port)));
        assert_eq!(record.status.ports.iter().collect::<Vec<_>>(), ["3000:80/tcp"]);
        record.hear(&proxy(ProxyEvent::Disconnected { target: 1, reason: "cut".to_owned() }));
        assert_eq!(record.status.state, State::Reconnecting);
        record.hear(&proxy(ProxyEvent::Reconnected { target: 1, kept: true }));
        assert_eq!(record.status.state, State::Up);
        record.hear(&proxy(ProxyEvent::Unsubscribed(port)));
        assert!(record.status.ports.is_empty());
        let texts: Vec<_> = record.status.events.iter().map(|told| told.text.as_str()).collect();
        assert_eq!(
            texts,
            ["the tunnel to the target is cut: cut", "the tunnel to the target is back"]
        );
    }

    #[test]
    fn what_was_written_down_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut record = record();
        record.hear(&Event::Warning { message: "before".to_owned() });
        record.detach(folder.path()).expect("a file");
        // However much is logged: it is no event.
        for number in 0..2 * REMEMBERED {
            record.hear(&Event::Log { from: "proxy".to_owned(), line: number.to_string() });
        }
        record.hear(&Event::Lost(Failure::new("the target stopped").because("why")));
        let path = log_path(folder.path(), &record.status.session);
        let state = || Status::read(&path).map(|status| status.state).expect("a status");
        assert_eq!(state(), State::Stopping, "who wrote it is still there");
        drop(record);
        assert_eq!(state(), State::Lost);
        let status = Status::read(&path).expect("a status");
        assert!(status.detached);
        let texts: Vec<_> = status.events.iter().map(|told| told.text.as_str()).collect();
        assert_eq!(texts, ["before", "the target stopped: why"]);
    }

    #[test]
    fn only_so_much_is_remembered() {
        let mut record = record();
        for number in 0..100 {
            record.hear(&Event::Warning { message: number.to_string() });
        }
        assert_eq!(record.status.events.len(), REMEMBERED);
        assert_eq!(record.status.events.back().map(|told| told.text.as_str()), Some("99"));
    }
}
