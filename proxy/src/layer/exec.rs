//! Static programs that are about to be executed: each is answered with one that has the layer in
//! it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;

use nix::fcntl::SealFlag;
use nix::libc;
use tokio::sync::Semaphore;
use tracing::debug;

use super::StaticLayer;
use super::call::Answer;
use super::memory::{seal, sealable_program};
use super::rewrite::{Blob, RewriteError, rewrite};

/// Larger programs are not read.
const LARGEST: u64 = 512 << 20;
/// So many rewritten programs are kept, and so much of them.
const KEPT: usize = 16;
const KEPT_BYTES: u64 = 256 << 20;
/// So many are rewritten at once: each is whole in memory twice.
const AT_ONCE: usize = 2;
const NAME: &str = "mirrord-program";

/// Why a program is not replaced.
#[derive(Debug, thiserror::Error)]
enum ExecError {
    /// It can't be read, or no memory is left.
    #[error("the program could not be read")]
    Io(#[from] io::Error),
    /// It is no regular file, or too large.
    #[error("the program is no file of at most {} MB", LARGEST >> 20)]
    File,
    /// It is none that can be rewritten.
    #[error("the program was not rewritten")]
    Rewrite(#[from] RewriteError),
}

/// Which file a program is, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    path: PathBuf,
}

impl Identity {
    fn of(metadata: &Metadata, path: PathBuf) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            path,
        }
    }
}

/// The programs that were rewritten last.
pub(super) struct Programs {
    blob: StaticLayer,
    kept: Kept,
    room: Semaphore,
}

type Kept = Rc<RefCell<VecDeque<(Identity, File)>>>;

impl Programs {
    pub(super) fn new(blob: StaticLayer) -> Self {
        Self { blob, kept: Kept::default(), room: Semaphore::new(AT_ONCE) }
    }

    /// A program with the layer in it.
    pub(super) async fn rewritten(&self, program: Option<OwnedFd>) -> Answer {
        let Some(program) = program.map(File::from) else { return Answer::refused(libc::EBADF) };
        match self.find(program).await {
            Ok(program) => Answer::done(0).with(program),
            // A loader loads the library into it, or has the layer in it already.
            Err(ExecError::Rewrite(RewriteError::Dynamic | RewriteError::Rewritten)) => {
                Answer::direct()
            }
            Err(error) => {
                debug!(error = format!("{:#}", anyhow::Error::new(error)), "a static program");
                Answer::refused(libc::ENOEXEC)
            }
        }
    }

    async fn find(&self, program: File) -> Result<OwnedFd, ExecError> {
        let metadata = program.metadata()?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(ExecError::File);
        }
        let path = fs::read_link(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
        let identity = Identity::of(&metadata, path);
        let _room = self.room.acquire().await;
        let known = self.kept.borrow().iter().position(|(known, _)| *known == identity);
        if let Some(known) = known.and_then(|at| self.kept.borrow_mut().remove(at)) {
            return self.keep(known);
        }
        let (blob, path) = (self.blob, identity.path.clone());
        // Reading and copying takes a while: others are not kept waiting.
        let made = tokio::task::spawn_blocking(move || make(program, blob, &path));
        let made = made.await.map_err(|_| ExecError::File)??;
        self.keep((identity, made))
    }

    fn keep(&self, program: (Identity, File)) -> Result<OwnedFd, ExecError> {
        let shared = share(&program.1)?;
        let mut kept = self.kept.borrow_mut();
        kept.push_front(program);
        let mut bytes = 0;
        kept.retain(|(program, _)| {
            bytes += program.size;
            bytes <= KEPT_BYTES
        });
        kept.truncate(KEPT);
        Ok(shared)
    }
}

/// Opened anew: execve(2) refuses what is open for writing.
fn share(file: &File) -> io::Result<OwnedFd> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map(OwnedFd::from)
}

fn make(mut program: File, blob: StaticLayer, path: &std::path::Path) -> Result<File, ExecError> {
    let blob = Blob::parse(blob.0)?;
    let mut bytes = Vec::new();
    program.rewind()?;
    (&program).take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(ExecError::File);
    }
    let rewritten = rewrite(&bytes, &blob, path.as_os_str().as_bytes())?;
    let mut file = sealable_program(NAME)?;
    file.write_all(&rewritten)?;
    seal(&file, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o555))?;
    Ok(share(&file)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(file: File) -> Result<OwnedFd, ExecError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Programs::new(StaticLayer(&[])).find(file))
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        assert!(matches!(find(File::open("/dev/zero").unwrap()), Err(ExecError::File)));
        assert!(matches!(find(File::open("/").unwrap()), Err(ExecError::File)));
    }

    #[test]
    fn without_a_layer_for_static_programs_none_is_rewritten() {
        let this = File::open("/proc/self/exe").unwrap();
        let result = find(this);
        assert!(matches!(result, Err(ExecError::Rewrite(RewriteError::NoBlob))), "{result:?}");
    }
}
