//! From the name of a workload to the pods whose place a session takes.
//!
//! ```text
//!  workload  the object, and how its pods are listed   pod    one pod: fit to be a target, or why not
//!  watch     its pods, as they come and go             near   what might have been meant
//!  node      where an agent without a target can run
//! ```

mod error;
mod near;
mod node;
mod pod;
#[cfg(test)]
mod pod_tests;
mod watch;
mod workload;

pub use node::{Host, a_node};
#[cfg(test)]
pub use pod::OtherPod;
pub use pod::{Pods, Standing, TargetPod, Why};
pub use watch::watch_pods;
pub use workload::{Workload, resource};
