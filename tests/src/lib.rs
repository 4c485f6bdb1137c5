//! The harness of every test that crosses a room, and the programs that such tests run.
//!
//! ```text
//!  test ──► Lab ──► networks, containers     (an engine that answers on DOCKER_HOST)
//!   │        ├────► Mirrord ──► session ──► Probe in the app container
//!   │        └────► Exec ─────► session ──► Probe, or any program of the toolbox, on this machine
//!   ├──────► Cluster ──► namespaces, workloads   (the cluster of KUBECONFIG)
//!   └──────► Probe: asks a container over its stdin, reads JSON lines from its stdout
//! ```

#![forbid(unsafe_code)]

pub mod background;
pub mod bench;
pub mod cluster;
pub mod compose;
pub mod cut;
pub mod dice;
pub mod differential;
pub mod docker;
pub mod exec;
pub mod lab;
pub mod leftovers;
pub mod mirrord;
pub mod preload;
pub mod probe;
pub mod processes;
pub mod remote;
pub mod remote_engine;
pub mod scene;
pub mod screen;
pub mod setting;
pub mod skip;
pub mod terminal;
pub mod toolbox;
pub mod wait;
