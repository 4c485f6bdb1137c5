//! The stage of the tests that need a cluster: what `lab` is for an engine.
//!
//! ```text
//!  test ──► Cluster ──► Scene: a namespace with workloads, a client pod    (kubectl, KUBECONFIG)
//!   │          └──────► Lab: the app's container                           (an engine)
//!   └─► Mirrord ─► session ─► Probe          Client: a probe in a pod, over `kubectl exec`
//! ```

mod client;
mod forward;
mod kubectl;
pub mod manifest;
mod node;
mod objects;
mod scene;
mod space;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::Result;

use crate::lab::Lab;
use crate::skip;

pub use client::Client;
pub use forward::Forward;
pub use kubectl::Kubectl;
pub use node::{Network, Node};
pub use objects::{Objects, gone, of_session};
pub use scene::Scene;
pub use space::{Pod, Space};

/// Written to by whoever disturbs the cluster itself.
static QUIET: RwLock<()> = RwLock::new(());

/// What keeps the tests apart that can't run beside each other.
enum Turn {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A cluster that answers, and the engine for the apps.
pub struct Cluster {
    /// The engine.
    pub lab: Lab,
    /// kubectl, as the kubeconfig's user.
    pub kubectl: Kubectl,
    _turn: Turn,
}

impl Cluster {
    /// The cluster of `KUBECONFIG`; `None` (and a loud line) where there is none.
    ///
    /// # Errors
    /// If there is none and `CI=true`.
    pub fn open(test: &str) -> Result<Option<Self>> {
        let guard = QUIET.read().unwrap_or_else(PoisonError::into_inner);
        Self::with(test, Turn::Shared { _guard: guard })
    }

    /// The same while no other test of the file runs.
    ///
    /// # Errors
    /// If there is none and `CI=true`.
    pub fn open_alone(test: &str) -> Result<Option<Self>> {
        let guard = QUIET.write().unwrap_or_else(PoisonError::into_inner);
        Self::with(test, Turn::Alone { _guard: guard })
    }

    fn with(test: &str, turn: Turn) -> Result<Option<Self>> {
        let Some(kubectl) = Kubectl::of_environment() else {
            skip::missing(test, "a cluster: KUBECONFIG and kubectl")?;
            return Ok(None);
        };
        let lab = Lab::open(test)?;
        Ok(lab.map(|lab| Self { lab, kubectl, _turn: turn }))
    }
}
