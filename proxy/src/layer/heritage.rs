//! What outlives a worker: the memory that the app's processes have mapped, and the socket that
//! they ask on. The proxy's first process holds both, and each worker is born with them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use mirrord_netns::inherited;
use mirrord_protocol::control::{LayerConfig, PlaneKind, ProxyConfig};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::Value;

use super::{Provision, memory};

/// Beside the fields of [`ProxyConfig`]: the numbers of both descriptors.
const FIELD: &str = "inherited";

/// The memory and the socket.
#[derive(Debug)]
pub(crate) struct Heritage {
    pub(super) memory: File,
    pub(super) listener: UnixListener,
}

impl Heritage {
    /// Makes what a session needs; nothing if the kernel does everything.
    pub(crate) fn of(config: &ProxyConfig) -> io::Result<Option<Self>> {
        match &config.plane {
            PlaneKind::Netns(None) => Ok(None),
            PlaneKind::Netns(Some(config)) | PlaneKind::Layer(config) => {
                Self::make(config).map(Some)
            }
        }
    }

    /// What a worker was born with, or new.
    pub(super) fn of_worker(provision: &Provision, config: &LayerConfig) -> io::Result<Self> {
        match &provision.heritage {
            Some(heritage) => heritage.share(),
            None => Self::make(config),
        }
    }

    fn make(config: &LayerConfig) -> io::Result<Self> {
        let name = SocketAddr::from_abstract_name(&config.socket)?;
        let listener = UnixListener::bind_addr(&name)?;
        listener.set_nonblocking(true)?;
        Ok(Self { memory: memory::create()?, listener })
    }

    /// Leaves both to the children of this process; `line` is a configuration, and what it becomes
    /// says where they are.
    pub(crate) fn leave(&self, line: &str) -> io::Result<String> {
        let mut config: Value = serde_json::from_str(line)?;
        let fields = config.as_object_mut().ok_or(io::ErrorKind::InvalidData)?;
        let numbers = vec![left(self.memory.as_fd())?, left(self.listener.as_fd())?];
        fields.insert(FIELD.to_owned(), numbers.into());
        Ok(config.to_string() + "\n")
    }

    /// Takes what the process before this one has left; nothing if it has left nothing.
    pub(crate) fn take(line: &str) -> io::Result<Option<Self>> {
        let config: Value = serde_json::from_str(line)?;
        let number = |at: usize| {
            config.get(FIELD)?.get(at)?.as_i64().and_then(|number| RawFd::try_from(number).ok())
        };
        let (Some(memory), Some(listener)) = (number(0), number(1)) else { return Ok(None) };
        let memory = inherited::descriptor(memory)?.into();
        Ok(Some(Self { memory, listener: inherited::descriptor(listener)?.into() }))
    }

    /// Another hold on the same.
    fn share(&self) -> io::Result<Self> {
        Ok(Self { memory: self.memory.try_clone()?, listener: self.listener.try_clone()? })
    }
}

/// Clears FD_CLOEXEC.
fn left(descriptor: BorrowedFd<'_>) -> io::Result<RawFd> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(descriptor.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken() {
        let config = LayerConfig {
            socket: format!("mirrord-test-heritage-{}", std::process::id()),
            key: None,
            hostname: false,
            owns_etc: false,
            skipped: Vec::new(),
            listen_ports: Vec::new(),
            unix_streams: Vec::new(),
        };
        let made = Heritage::make(&config).unwrap();
        assert!(Heritage::make(&config).is_err(), "the name is taken");
        let line = made.leave("{\"session\":\"x\"}\n").unwrap();
        let taken = Heritage::take(&line).unwrap().unwrap();
        let inode = |file: &File| std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        assert_eq!(inode(&made.memory), inode(&taken.memory));
        assert!(Heritage::take("{\"session\":\"x\"}\n").unwrap().is_none());
    }
}
