//! Everything a session could leave in a cluster, listed before and after.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Kubectl, Space};
use crate::wait;

const KINDS: &str = "jobs,configmaps,pods,secrets,services,endpointslices,serviceaccounts,roles,\
                     rolebindings,deployments,replicasets";

/// The objects of a namespace, and ours wherever they are.
pub struct Objects {
    kubectl: Kubectl,
    there: BTreeSet<String>,
}

impl Objects {
    /// As they are now.
    ///
    /// # Errors
    /// If they can't be listed.
    pub fn now(space: &Space) -> Result<Self> {
        let kubectl = space.kubectl.clone();
        Ok(Self { there: list(&kubectl)?, kubectl })
    }

    /// Waits until exactly those are there that were there before.
    ///
    /// # Errors
    /// If one more or less stays longer than `patience`; the message names it.
    pub fn as_before(&self, patience: Duration) -> Result<()> {
        let mut changed = Vec::new();
        wait::within(patience, "no object to be left", || {
            let now = list(&self.kubectl)?;
            changed = now.symmetric_difference(&self.there).cloned().collect();
            Ok(changed.is_empty().then_some(()))
        })
        .with_context(|| format!("left behind or gone: {changed:?}"))
    }
}

fn list(kubectl: &Kubectl) -> Result<BTreeSet<String>> {
    Ok(kubectl.run(&["get", KINDS, "-o", "name"])?.lines().map(str::to_owned).collect())
}

/// The names of the objects of a session, in every namespace.
///
/// # Errors
/// If they can't be listed.
pub fn of_session(kubectl: &Kubectl, id: &str) -> Result<Vec<String>> {
    let label = format!("mirrord.session={id}");
    let named = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name";
    let words = ["get", "jobs,configmaps,pods", "-A", "-l", &label, "--no-headers", "-o", named];
    Ok(kubectl.run(&words)?.lines().map(str::to_owned).collect())
}

/// Waits until nothing of a session is left in any namespace.
///
/// # Errors
/// If something stays longer than `patience`; the message names it.
pub fn gone(kubectl: &Kubectl, id: &str, patience: Duration) -> Result<()> {
    let mut left = Vec::new();
    wait::within(patience, "the session's objects to be gone", || {
        left = of_session(kubectl, id)?;
        Ok(left.is_empty().then_some(()))
    })
    .with_context(|| format!("left behind: {left:?}"))
}
