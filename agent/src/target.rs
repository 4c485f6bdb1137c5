//! Whom the agent works beside.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use mirrord_netns::TargetNet;
use mirrord_netns::enter::{ContainerId, EnterError, Place, Process};
use tracing::{info, warn};

/// A target, as seen by a thread in its namespaces.
#[derive(Debug)]
pub(crate) struct Target {
    who: Who,
    /// Whether the agent was born in its namespaces.
    pub(crate) place: Place,
    nodes: Nodes,
}

/// The addresses of the target's node, if its probes stay with the target.
pub(crate) type Nodes = Option<Arc<[IpAddr]>>;

#[derive(Debug)]
enum Who {
    /// A process that ends with the agent's namespaces.
    Pid(u32),
    /// A container, whose process may be another one later.
    Container(ContainerId, Cell<Process>),
}

impl Target {
    /// The target that the agent was born beside, or the agent itself.
    pub(crate) fn own(pid: u32, nodes: Nodes) -> Self {
        Self { who: Who::Pid(pid), place: Place::Own, nodes }
    }

    /// A container whose namespaces the calling thread enters.
    pub(crate) fn enter(
        container: ContainerId,
        process: Process,
        nodes: Nodes,
    ) -> Result<Self, EnterError> {
        let place = process.enter()?;
        Ok(Self { who: Who::Container(container, Cell::new(process)), place, nodes })
    }

    /// Its process at this moment; none when it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        let (container, process) = match &self.who {
            Who::Pid(pid) => return Some(*pid),
            Who::Container(container, process) => (container, process),
        };
        if !process.get().is_alive() {
            match Process::find(container) {
                Ok(now) => {
                    info!(pid = now.pid(), "the target has another process now");
                    process.set(now);
                }
                Err(error) => {
                    warn!(%error, "the target has no process");
                    return None;
                }
            }
        }
        Some(process.get().pid())
    }

    /// What its namespace looks like now.
    pub(crate) fn look(&self) -> anyhow::Result<TargetNet> {
        let target = TargetNet::look(self.nodes.as_deref()).context("looking at the target")?;
        if target.mesh {
            info!("the target is behind the proxy of a mesh");
        }
        Ok(target)
    }
}
