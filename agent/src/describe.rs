//! Who the target is.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mirrord_netns::addresses::addresses;
use mirrord_netns::enter::Place;
use mirrord_protocol::frame::{Description, MAX_FRAME};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use tracing::warn;

use crate::target::Target;

/// Bytes of one of the target's files; all parts together must fit into one frame.
const MAX_FILE: usize = MAX_FRAME / 16;
/// Bytes of the target's environment.
const MAX_ENVIRON: usize = MAX_FRAME / 4 * 3;

/// What the proxy makes the app look like. What can't be read stays empty.
pub(crate) fn describe(target: &Target, env: bool) -> Description {
    let process = target.pid().map(|pid| PathBuf::from(format!("/proc/{pid}")));
    let addresses = addresses().unwrap_or_else(|error| {
        warn!(%error, "the target's addresses are unknown");
        Vec::new()
    });
    let file = |name| file_of(target, process.as_deref(), name).unwrap_or_default();
    let environ = process.as_deref().filter(|_| env).map(|process| process.join("environ"));
    Description {
        hostname: nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        addresses: addresses
            .into_iter()
            .filter(|address| !address.loopback)
            .map(|address| (address.ip, address.prefix))
            .collect(),
        resolv_conf: file("etc/resolv.conf"),
        hosts: file("etc/hosts"),
        environ: environ
            .and_then(|path| read(&path, MAX_ENVIRON, |path| File::open(path)))
            .unwrap_or_default(),
    }
}

/// A file as the target sees it; else our own, if our namespaces are the target's: all containers
/// of a pod, and all that join a container's network, have the same.
fn file_of(target: &Target, process: Option<&Path>, name: &str) -> Option<Bytes> {
    let of_process =
        process.and_then(|process| read(Path::new(name), MAX_FILE, |name| open_in(process, name)));
    let own = || read(&Path::new("/").join(name), MAX_FILE, |path| File::open(path));
    of_process.or_else(|| if target.place == Place::Own { own() } else { None })
}

/// Opens a file below the root of a process, whatever links stand there: they are the target's.
fn open_in(process: &Path, name: &Path) -> io::Result<File> {
    match resolve(process, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        Ok(file) => Ok(file.into()),
        // An engine whose rules for system calls are older than this one.
        Err(Errno::ENOSYS | Errno::EPERM) => File::open(process.join("root").join(name)),
        Err(error) => Err(error.into()),
    }
}

/// openat2(2) below the root of a process.
pub(crate) fn resolve(process: &Path, name: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(&process.join("root"), folder, Mode::empty())?;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    openat2(folder, name, how)
}

fn read(path: &Path, max: usize, open: impl FnOnce(&Path) -> io::Result<File>) -> Option<Bytes> {
    let mut bytes = Vec::new();
    let file = open(path);
    match file.and_then(|file| file.take(max as u64 + 1).read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() > max => {
            warn!(?path, max, "too large to send");
            None
        }
        Ok(_) => Some(bytes.into()),
        Err(error) => {
            warn!(?path, %error, "not readable");
            None
        }
    }
}
