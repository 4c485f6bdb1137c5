//! Who the target is.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mirrord_netns::addresses::addresses;
use mirrord_protocol::frame::{Description, MAX_FRAME};
use tracing::warn;

/// Bytes of one of the target's files; all parts together must fit into one frame.
const MAX_FILE: usize = MAX_FRAME / 16;
/// Bytes of the target's environment.
const MAX_ENVIRON: usize = MAX_FRAME / 4 * 3;

/// What the proxy makes the app look like. What can't be read stays empty.
pub(crate) fn describe(pid: u32, env: bool) -> Description {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let addresses = addresses().unwrap_or_else(|error| {
        warn!(%error, "the target's addresses are unknown");
        Vec::new()
    });
    Description {
        hostname: nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        addresses: addresses
            .into_iter()
            .filter(|address| !address.loopback)
            .map(|address| (address.ip, address.prefix))
            .collect(),
        resolv_conf: of_target(&process, "etc/resolv.conf"),
        hosts: of_target(&process, "etc/hosts"),
        environ: if env {
            read(&process.join("environ"), MAX_ENVIRON).unwrap_or_default()
        } else {
            Bytes::new()
        },
    }
}

/// A file as the target sees it; else our own, which the engine shares with it.
fn of_target(process: &Path, file: &str) -> Bytes {
    read(&process.join("root").join(file), MAX_FILE)
        .or_else(|| read(&Path::new("/").join(file), MAX_FILE))
        .unwrap_or_default()
}

fn read(path: &Path, max: usize) -> Option<Bytes> {
    match fs::read(path) {
        Ok(bytes) if bytes.len() > max => {
            warn!(?path, bytes = bytes.len(), "too large to send");
            None
        }
        Ok(bytes) => Some(bytes.into()),
        Err(error) => {
            warn!(?path, %error, "not readable");
            None
        }
    }
}
