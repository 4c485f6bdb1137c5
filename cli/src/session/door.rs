//! Where a session's proxy takes pipes over: in its sidecar, or on this machine.

use std::path::PathBuf;

use mirrord_protocol::control::TargetIndex;

use super::here;
use crate::engine::Engine;
use crate::engine::exec::{self, Pipe};
use crate::failure::Failure;

/// The proxy's door.
#[derive(Clone)]
pub enum Door {
    /// In a sidecar.
    Sidecar {
        /// Where it is.
        engine: Engine,
        /// Its id.
        id: String,
    },
    /// On this machine.
    Here {
        /// The proxy's folder.
        folder: PathBuf,
    },
}

impl Door {
    /// Starts a process whose standard streams are a pipe to the proxy.
    pub async fn open(&self, index: TargetIndex, container: Option<&str>) -> Result<Pipe, Failure> {
        match self {
            Self::Sidecar { engine, id } => {
                Ok(exec::proxy_pipe(engine, id, index, container).await?)
            }
            Self::Here { folder } => here::proxy_pipe(folder, index, container)
                .map_err(|error| Failure::caused_by("cannot start a process of the proxy", &error)),
        }
    }
}
