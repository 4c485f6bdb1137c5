//! A container's process, found by the container's id alone, and its namespaces.
//!
//! No container runtime is asked: the kernel says of every process which cgroup it is in, and
//! every runtime puts the container's id into that cgroup's name.

mod container;
mod process;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
};

use nix::sched::{CloneFlags, setns};

use crate::privileges::{Capability, Missing, require};

pub use container::{ContainerId, NotAnId};
pub use process::Process;

/// What entering another pod's namespaces takes.
const NEEDS: [Capability; 2] = [Capability::SysAdmin, Capability::SysPtrace];

/// Why a container's namespaces could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The processes could not be listed.
    #[error("cannot list the processes of this machine")]
    List(#[source] io::Error),
    /// No process is in a cgroup of that name.
    #[error("no process of the container {0} runs here")]
    NotRunning(ContainerId),
    /// The process has ended meanwhile.
    #[error("the container's process {0} has ended")]
    Gone(u32),
    /// The pod has no network namespace of its own.
    #[error("the pod uses its node's own network")]
    HostNetwork,
    /// The rights do not suffice.
    #[error("the namespaces of another pod cannot be entered")]
    NotAllowed(#[from] Missing),
    /// A namespace could not be opened.
    #[error("cannot open the {namespace} namespace of process {pid}")]
    Open {
        /// Which one, as in `/proc/PID/ns`.
        namespace: &'static str,
        /// Whose.
        pid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A namespace could not be entered.
    #[error("cannot enter the {0} namespace of the container")]
    Set(&'static str, #[source] io::Error),
}

/// Whose namespaces a container's network turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The calling thread was there already: it is of the same pod.
    Own,
    /// Those of another pod; the thread has entered them.
    Other,
}

impl Process {
    /// Brings the calling thread, and those that it starts later, into the network and UTS
    /// namespaces of this process. Where it is there already nothing is done, and no privilege
    /// is needed.
    pub fn enter(&self) -> Result<Place, EnterError> {
        let network = network(&self.pid().to_string());
        let network = network.map_err(|source| self.cannot_open("net", source))?;
        if network_of_thread().is_ok_and(|own| own == network) {
            return Ok(Place::Own);
        }
        if self::network("1").is_ok_and(|node| node == network) {
            return Err(EnterError::HostNetwork);
        }
        require(&NEEDS)?;
        let uts = self.open("uts")?;
        let net = self.open("net")?;
        if !self.is_alive() {
            return Err(EnterError::Gone(self.pid()));
        }
        let set = |name, file: &File, kind| {
            setns(file, kind).map_err(|error| EnterError::Set(name, error.into()))
        };
        set("uts", &uts, CloneFlags::CLONE_NEWUTS)?;
        set("net", &net, CloneFlags::CLONE_NEWNET)?;
        Ok(Place::Other)
    }

    fn open(&self, namespace: &'static str) -> Result<File, EnterError> {
        File::open(format!("/proc/{}/ns/{namespace}", self.pid()))
            .map_err(|source| self.cannot_open(namespace, source))
    }

    fn cannot_open(&self, namespace: &'static str, source: io::Error) -> EnterError {
        match self.is_alive() {
            true => EnterError::Open { namespace, pid: self.pid(), source },
            false => EnterError::Gone(self.pid()),
        }
    }
}

/// What tells the network namespace of a process from others: the inode of a file that each
/// namespace has of its own. The namespace itself shows its inode to those with privileges only.
fn network(process: &str) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{process}/net/dev"))?.ino())
}

fn network_of_thread() -> io::Result<u64> {
    network("thread-self")
}
