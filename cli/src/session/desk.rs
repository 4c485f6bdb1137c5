//! Where a keeper can be asked: a unix socket in a folder of its user's own.
//!
//! ```text
//!   $XDG_RUNTIME_DIR/mirrord/  ID.sock   as long as a keeper lives
//!                              ID.log    what happened in a detached session
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout};

use super::SessionId;
use super::standing::Caller;
use crate::failure::Failure;
use crate::settings;

/// How many may ask at the same time.
const MOST: usize = 16;
/// How long a question and its answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is left of a session is forgotten after so long.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);
/// What the names of sockets and files end in.
const SOCKET: &str = "sock";
const LOG: &str = "log";

/// What a keeper is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How the session is.
    Status,
    /// To end it; answered once nothing of it is left.
    Stop,
    /// What the app of a compose project has to know, which that command is about to start anew.
    Again(Caller),
}

/// A request and who waits for its answer.
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Who asks.
    pub by: UnixStream,
}

/// The keeper's end.
pub struct Desk {
    listener: UnixListener,
    /// Until when nobody is let in, since nobody could be.
    closed_until: Option<Instant>,
    path: PathBuf,
    questions: FuturesUnordered<Pin<Box<dyn Future<Output = Option<Asked>>>>>,
    answers: FuturesUnordered<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Desk {
    /// Opens it; who sees the socket finds somebody there.
    pub fn open(session: &SessionId) -> io::Result<Self> {
        let folder = make_folder()?;
        let path = folder.join(format!("{session}.{SOCKET}"));
        let hidden = folder.join(format!(".{session}"));
        let listener = UnixListener::bind(&hidden)?;
        fs::rename(&hidden, &path)?;
        Ok(Self {
            listener,
            closed_until: None,
            path,
            questions: FuturesUnordered::new(),
            answers: FuturesUnordered::new(),
        })
    }

    /// The next request. Can be cancelled without loss.
    pub async fn next(&mut self) -> Asked {
        loop {
            let busy = self.questions.len() + self.answers.len() >= MOST;
            let opening = self.closed_until;
            tokio::select! {
                accepted = self.listener.accept(), if !busy && opening.is_none() => match accepted {
                    Ok((stream, _)) => self.questions.push(Box::pin(question(stream))),
                    Err(_) => self.closed_until = Some(Instant::now() + PATIENCE),
                },
                () = until(opening) => self.closed_until = None,
                asked = self.questions.next(), if !self.questions.is_empty() => {
                    if let Some(Some(asked)) = asked {
                        return asked;
                    }
                }
                _ = self.answers.next(), if !self.answers.is_empty() => {}
            }
        }
    }

    /// Answers beside other requests.
    pub fn answer<T: Serialize>(
        &mut self,
        mut asked: Asked,
        answer: impl Future<Output = T> + 'static,
    ) {
        self.answers.push(Box::pin(async move {
            let _ = timeout(PATIENCE, async {
                let answer = answer.await;
                say(&mut asked.by, &answer).await
            })
            .await;
        }));
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A moment, or never.
pub async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn question(mut stream: UnixStream) -> Option<Asked> {
    let mut line = String::new();
    let mut reader = BufReader::new((&mut stream).take(128));
    timeout(PATIENCE, reader.read_line(&mut line)).await.ok()?.ok()?;
    let request = serde_json::from_str(&line).ok()?;
    Some(Asked { request, by: stream })
}

async fn say(stream: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    stream.write_all((serde_json::to_string(value)? + "\n").as_bytes()).await
}

/// Where a session of this user is asked.
pub fn socket(session: &SessionId) -> PathBuf {
    settings::runtime_folder().join(format!("{session}.{SOCKET}"))
}

/// Tells those who wanted the session's end how it went.
pub async fn tell_the_end(waiting: Vec<UnixStream>, end: &Result<(), Failure>) {
    for mut stream in waiting {
        let _ = timeout(PATIENCE, say(&mut stream, end)).await;
    }
}

/// What there is of sessions in this user's folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Sockets of sessions that somebody keeps, as far as can be seen.
    pub sockets: Vec<PathBuf>,
    /// Files of sessions, kept or not.
    pub logs: Vec<PathBuf>,
}

/// Looks into the folder; one that is not this user's has nothing.
pub fn find() -> Found {
    find_in(&settings::runtime_folder())
}

fn find_in(folder: &Path) -> Found {
    let mut found = Found::default();
    let entries = check(folder).and_then(|()| fs::read_dir(folder));
    for entry in entries.into_iter().flatten().flatten() {
        let path = entry.path();
        // Whatever else has such a name may never answer.
        let Ok(kind) = entry.file_type() else { continue };
        match path.extension().and_then(|end| end.to_str()) {
            Some(SOCKET) if kind.is_socket() => found.sockets.push(path),
            Some(LOG) if kind.is_file() => found.logs.push(path),
            _ => {}
        }
    }
    found
}

/// Asks a keeper; `None` if there is none any more, whose socket then goes.
pub async fn ask(path: &Path, request: Request) -> io::Result<Option<String>> {
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let _ = fs::remove_file(path);
            return Ok(None);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut answer = String::new();
    let asked = async {
        say(&mut stream, &request).await?;
        stream.read_to_string(&mut answer).await
    };
    match request {
        Request::Status | Request::Again(_) => {
            timeout(PATIENCE, asked).await.map_err(io::Error::other)??
        }
        // An app may take its time to stop.
        Request::Stop => asked.await?,
    };
    Ok(Some(answer).filter(|answer| !answer.is_empty()))
}

/// Files of sessions that nobody keeps; sockets behind which nobody is are removed.
pub fn left_over() -> Vec<PathBuf> {
    let found = find();
    for socket in found.sockets {
        let connected = std::os::unix::net::UnixStream::connect(&socket);
        if connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            let _ = fs::remove_file(socket);
        }
    }
    found.logs.into_iter().filter(|log| !log.with_extension(SOCKET).exists()).collect()
}

/// Removes what sessions of long ago have left.
pub fn sweep() {
    for log in left_over() {
        let written = log.metadata().and_then(|meta| meta.modified());
        let age = written.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if age.is_ok_and(|age| age > OLD) {
            let _ = fs::remove_file(log);
        }
    }
}

/// The folder, made if it is not there.
pub fn make_folder() -> io::Result<PathBuf> {
    let folder = settings::runtime_folder();
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => check(&folder).map(|()| folder),
    }
}

/// Whether the folder is this user's alone: its name can be guessed.
fn check(folder: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(folder)?;
    let own = meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw();
    match own && meta.mode() & 0o077 == 0 {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} is not ours alone", folder.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_others_may_enter_is_not_used() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("mirrord");
        DirBuilder::new().mode(0o700).create(&folder).expect("made");
        assert!(check(&folder).is_ok());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("opened");
        assert!(check(&folder).is_err());
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).expect("a link");
        assert!(check(&link).is_err());
    }

    #[test]
    fn what_is_no_file_of_a_session_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("closed");
        let mode = nix::sys::stat::Mode::S_IRWXU;
        for name in ["x.log", "x.sock"] {
            nix::unistd::mkfifo(&path(name), mode).expect("a fifo");
        }
        fs::write(path("y.log"), "").expect("a file");
        std::os::unix::fs::symlink(path("x.log"), path("z.log")).expect("a link");
        let found = find_in(folder.path());
        assert_eq!((found.sockets, found.logs), (vec![], vec![path("y.log")]));
    }

    #[tokio::test]
    async fn who_is_in_is_heard_while_nobody_else_can_be_let_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (mut asker, inside) = UnixStream::pair().expect("a pair");
        say(&mut asker, &Request::Status).await.expect("asked");
        let questions = FuturesUnordered::new();
        questions.push(Box::pin(question(inside)) as Pin<Box<dyn Future<Output = _>>>);
        let closed_until = Some(Instant::now() + 100 * PATIENCE);
        let mut desk =
            Desk { listener, closed_until, path, questions, answers: FuturesUnordered::new() };
        let asked = timeout(PATIENCE, desk.next()).await.expect("heard");
        assert_eq!(asked.request, Request::Status);
    }

    #[tokio::test]
    async fn a_socket_behind_which_nobody_is_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sock");
        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists());
        assert_eq!(ask(&path, Request::Status).await.expect("no error"), None);
        assert!(!path.exists());
        assert_eq!(ask(&path, Request::Stop).await.expect("no error"), None);
    }
}
