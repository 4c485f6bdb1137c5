//! A session whose app is a process of this machine: its folder, and the proxy as our child.
//!
//! ```text
//!   /tmp/mirrord-ID/  lock                  held as long as somebody keeps the session
//!                     libmirrord_layer.so   for the app and whomever it becomes
//!                     proxy/                the proxy's own
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use bollard::container::LogOutput;
use futures_util::StreamExt;
use futures_util::stream;
use mirrord_protocol::control::{LayerKey, ProxyConfig, TargetIndex};
use mirrord_protocol::layer::{KEY_LEN as LAYER_KEY, LAYER_FILE};
use nix::sys::statvfs::{FsFlags, statvfs};
use tokio::io::AsyncRead;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio_util::io::ReaderStream;

use super::SessionId;
use super::containers::Running;
use super::plane::Here;
use crate::engine::attached::Attached;
use crate::engine::elf::EXECUTABLE;
use crate::engine::exec::{self, Output, Pipe};
use crate::layer::LAYER;

/// What the name of a session's folder begins with.
const PREFIX: &str = "mirrord-";
/// Random bytes in the name of the proxy's socket.
const SUFFIX: usize = 8;
/// In each session's folder.
const LOCK: &str = "lock";
/// The longest path of a folder: a unix socket's path, in a folder below it, fits into `sun_path`.
const LONGEST: usize = 70;
/// A folder that is younger may not be locked yet.
const NEW: Duration = Duration::from_secs(10);
/// What is read from a process at once.
const CAPACITY: usize = 128 << 10;

/// A session's folder; it is removed with this.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes it, with the preload library in it.
    pub fn make(here: &Here) -> io::Result<Self> {
        let path = here.folder.clone();
        DirBuilder::new().mode(0o755).create(&path)?;
        let made = fill(here).inspect_err(|_| {
            let _ = fs::remove_dir_all(&path);
        });
        made.map(|lock| Self { path, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn fill(here: &Here) -> io::Result<File> {
    let lock = new_file(&here.folder.join(LOCK), 0o600)?;
    lock.lock()?;
    // Whatever the umask is: the app may become another user.
    fs::set_permissions(&here.folder, fs::Permissions::from_mode(0o755))?;
    DirBuilder::new().mode(0o700).create(here.private())?;
    let mut library = new_file(&here.library(), 0o755)?;
    library.write_all(LAYER)?;
    library.set_permissions(fs::Permissions::from_mode(0o755))?;
    Ok(lock)
}

fn new_file(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// A new place for a session, which no other user can guess.
pub fn place_for(session: &SessionId) -> io::Result<Here> {
    let mut random = [0; LAYER_KEY + SUFFIX];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let (key, suffix) = random.split_at(LAYER_KEY);
    let suffix: String = suffix.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = LayerKey(key.try_into().unwrap_or_default());
    Ok(Here { folder: folder_for(session)?, key, socket: format!("{PREFIX}{session}-{suffix}") })
}

/// Removes what a keeper that was killed has left of a session.
pub fn remove(here: &Here) {
    let _ = fs::remove_dir_all(&here.folder);
}

/// Where the folder of a session may be: programs can be loaded from there, and its path has
/// nothing that the loader takes for a separator.
fn folder_for(session: &SessionId) -> io::Result<PathBuf> {
    let name = format!("{PREFIX}{session}");
    let fits = |parent: &PathBuf| {
        let text = parent.to_str().unwrap_or(" ");
        let plain = text.starts_with('/') && !text.contains([' ', ':', '\t', '\n']);
        let loads = statvfs(parent).is_ok_and(|fs| !fs.flags().contains(FsFlags::ST_NOEXEC));
        plain && text.len() + name.len() < LONGEST && loads && is_writable(parent)
    };
    let parent = parents().into_iter().find(fits);
    parent.map(|parent| parent.join(&name)).ok_or_else(|| {
        io::Error::other("neither TMPDIR nor /tmp is a folder that programs can be loaded from")
    })
}

fn is_writable(folder: &Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

fn parents() -> Vec<PathBuf> {
    let mut parents = vec![std::env::temp_dir()];
    for other in ["/tmp", "/var/tmp", "/dev/shm"] {
        if parents[0] != Path::new(other) {
            parents.push(other.into());
        }
    }
    parents
}

/// Folders of this user's sessions that nobody keeps.
pub fn left_over() -> Vec<PathBuf> {
    let entries = parents().into_iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten();
    let ours = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)));
    ours.map(|entry| entry.path()).filter(|path| is_left(path)).collect()
}

fn is_left(path: &Path) -> bool {
    let file = path.join(LOCK);
    let Ok(meta) = fs::symlink_metadata(&file) else { return false };
    let age = SystemTime::now().duration_since(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    let own = meta.uid() == nix::unistd::geteuid().as_raw() && meta.is_file();
    let new = age.is_ok_and(|age| age < NEW);
    let free = || match File::open(&file).map(|lock| lock.try_lock()) {
        Ok(Err(TryLockError::WouldBlock)) | Err(_) => false,
        Ok(_) => true,
    };
    own && !new && path.join(LAYER_FILE).exists() && free()
}

/// Removes what sessions of this user left that nobody keeps.
pub fn sweep() {
    for folder in left_over() {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Starts the proxy, which leaves when its standard input ends.
pub async fn start_proxy(config: &ProxyConfig) -> io::Result<Running> {
    let mut child = process(&["proxy".to_owned()])?;
    let id = child.id().map(|id| id.to_string()).unwrap_or_default();
    let Pipe { output, input } = streams(&mut child)?;
    let mut attached = Attached::of(hold(output, child), input);
    attached.send(config).await?;
    Ok(Running::new(id, attached))
}

/// Starts the process that hands its standard streams to the proxy.
pub fn proxy_pipe(folder: &Path, index: TargetIndex, container: Option<&str>) -> io::Result<Pipe> {
    let mut words = exec::proxy_words(index, container);
    words.extend(["--folder".to_owned(), folder.to_string_lossy().into_owned()]);
    let mut child = process(&words)?;
    let Pipe { output, input } = streams(&mut child)?;
    Ok(Pipe { output: hold(output, Killed(child)), input })
}

/// Hands a connection to the agent to the proxy, and waits until it is none any more.
pub async fn lend(folder: &Path, agent: UnixStream) -> io::Result<()> {
    let agent = OwnedFd::from(agent.into_std()?);
    let mut child = Command::new(EXECUTABLE)
        .args(exec::proxy_words(0, None))
        .arg("--direct")
        .arg("--folder")
        .arg(folder)
        .stdin(agent.try_clone()?)
        .stdout(agent)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    child.wait().await.map(drop)
}

/// A process that ends with its last mention.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.start_kill();
    }
}

fn process(words: &[String]) -> io::Result<Child> {
    Command::new(EXECUTABLE)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn streams(child: &mut Child) -> io::Result<Pipe> {
    let missing = || io::Error::other("a pipe is missing");
    let input = child.stdin.take().ok_or_else(missing)?;
    let output = child.stdout.take().ok_or_else(missing)?;
    let words = child.stderr.take().ok_or_else(missing)?;
    let output = lines(output, |message| LogOutput::StdOut { message });
    let words = lines(words, |message| LogOutput::StdErr { message });
    Ok(Pipe { output: Box::pin(stream::select(output, words)), input: Box::pin(input) })
}

fn lines(from: impl AsyncRead + Send + 'static, of: fn(bytes::Bytes) -> LogOutput) -> Output {
    let chunks = ReaderStream::with_capacity(from, CAPACITY);
    Box::pin(chunks.map(move |chunk| Ok(of(chunk?))))
}

/// A stream that holds something as long as it lives.
fn hold(stream: Output, held: impl Send + 'static) -> Output {
    Box::pin(stream.map(move |item| {
        let _ = &held;
        item
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(folder: PathBuf) -> Here {
        Here { folder, key: LayerKey([0; 16]), socket: String::new() }
    }

    #[test]
    fn a_folder_is_there_as_long_as_it_is_kept() {
        let parent = tempfile::tempdir().expect("a folder");
        let here = here(parent.path().join("mirrord-x"));
        let folder = Folder::make(&here).expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&here.folder), 0o755);
        assert_eq!(mode(&here.library()), 0o755);
        assert_eq!(mode(&here.private()), 0o700);
        assert!(Folder::make(&here).is_err(), "it is another session's");
        drop(folder);
        assert!(!here.folder.exists());
    }

    #[test]
    fn only_a_folder_that_nobody_keeps_is_left_over() {
        let parent = tempfile::tempdir().expect("a folder");
        let here = here(parent.path().join("mirrord-x"));
        let folder = Folder::make(&here).expect("made");
        let lock = File::options().write(true).open(here.folder.join(LOCK)).expect("a lock");
        assert!(!is_left(&here.folder), "it is kept");
        lock.set_modified(SystemTime::now() - NEW * 2).expect("an older one");
        assert!(!is_left(&here.folder), "it is kept");
        let Folder { path: _, _lock } = &folder;
        _lock.unlock().expect("unlocked");
        assert!(is_left(&here.folder));
    }

    #[test]
    fn a_folder_has_a_place_on_this_machine() {
        let session = SessionId::random().expect("random");
        let folder = folder_for(&session).expect("a place");
        assert!(folder.ends_with(format!("mirrord-{session}")));
    }

    #[tokio::test]
    async fn a_pipe_says_why_it_is_none() {
        // `/proc/self/exe` is the test itself here, which knows no such words.
        let pipe = proxy_pipe(Path::new("/nowhere"), 0, None).expect("started");
        let said: Vec<_> = pipe.output.collect().await;
        assert!(!said.is_empty());
    }
}
