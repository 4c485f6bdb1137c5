//! Through a real port-forward, beside kubectl's own.
//!
//! ```text
//!  direct   pod ─────────────────────────────────────────► pod
//!  kubectl  this machine ─► kubectl port-forward ═════════► pod
//!  ours     app ─► mirrord's proxy ═ port-forward ═ agent ─► pod     and the other way, stolen
//! ```

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::rows::{self, Figure, Load};
use super::stage::{Way, Ways};
use super::table::{Goal, Row, Table, median};
use crate::cluster::manifest::{probe, spec, workload};
use crate::cluster::{Cluster, Forward, Scene};
use crate::lab::{PROBE, take_probe};
use crate::remote::Probe;
use crate::wait;

/// What a port-forward carries in a few seconds.
const LOAD: Load = Load { bulk: 200_000_000, round_trips: 2_000 };

const FIGURES: [Figure; 5] = [
    Figure { name: "upload, Gbit/s", measure: rows::upload, goal: Goal::AtLeast(0.9) },
    Figure { name: "download, Gbit/s", measure: rows::download, goal: Goal::AtLeast(0.9) },
    Figure { name: "64-byte echo p50, µs", measure: rows::p50, goal: Goal::AtMost(1.3) },
    Figure { name: "64-byte echo p99, µs", measure: rows::p99, goal: Goal::AtMost(1.3) },
    Figure { name: "connect + echo + close, 1/s", measure: rows::rate, goal: Goal::AtLeast(0.9) },
];

/// What the target serves: the outgoing ways lead to it as well.
const QUIET: &str = "serve quiet 0.0.0.0:7000 peer";

/// Measures and prints the table.
///
/// # Errors
/// If there is no cluster, or something measured fails.
pub fn measure(rounds: usize) -> Result<()> {
    let Some(cluster) = Cluster::open("the bench in a cluster")? else {
        return Ok(());
    };
    let peer = workload("Deployment", "peer", 1, spec(&[probe("peer", QUIET)]));
    let web = workload("Deployment", "web", 1, spec(&[probe("web", QUIET)]));
    let scene = Scene::with(&cluster, &[peer, web])?;
    let peer = scene.space.ready("peer", 1)?.remove(0);
    let target = scene.space.ready("web", 1)?.remove(0);
    let forward = Forward::open(&scene.space.kubectl, &peer.name, 7000)?;
    let here = Here::start()?;
    let session = scene.mirrord("deployment/web").with(["--steal"]).probe("app")?;
    session.app().must("serve quiet 0.0.0.0:7004 local")?;
    let stolen = format!("{}:7004", target.address);
    wait::until("the stolen port", || {
        scene.client().must(&format!("ask {stolen} whoami")).map(Some)
    })?;

    let mut table = Table::beside("kubectl");
    let served = format!("{}:7000", peer.address);
    let beside = |kind, ours| Ways {
        direct: Way { who: scene.client(), at: served.clone() },
        floor: Way { who: &here.probe, at: format!("127.0.0.1:{}", forward.port) },
        one: None,
        ours: vec![(kind, ours)],
    };
    let outgoing = beside("outgoing", Way { who: session.app(), at: served.clone() });
    rows::compare(&outgoing, (&FIGURES, LOAD), rounds, &mut table)?;
    let stolen = beside("stolen", Way { who: scene.client(), at: stolen });
    rows::compare(&stolen, (&FIGURES, LOAD), rounds, &mut table)?;
    drop(session);
    start(&scene, rounds, &mut table)?;
    print!("{table}");
    Ok(())
}

/// A probe on this machine itself.
struct Here {
    probe: Probe,
    child: Child,
}

impl Here {
    fn start() -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("probe");
        let mut child = Command::new(&program)
            .arg("shell")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let probe = take_probe(&mut child)?;
        probe.ready()?;
        Ok(Self { probe, child })
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.probe.close();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From the command to the moment the app may start, each step's time, and the whole of a
/// `docker run --rm IMAGE true`.
fn start(scene: &Scene<'_>, rounds: usize, table: &mut Table) -> Result<()> {
    let (mut whole, mut ready) = (Vec::new(), Vec::new());
    let mut steps: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        let name = scene.cluster.lab.name("quick");
        let mirrord = scene.mirrord("deployment/web").with(["--progress", "json"]);
        let mut command = mirrord.command(&name, PROBE, &["true"]);
        let begun = Instant::now();
        let output = command.output()?;
        whole.push(begun.elapsed().as_secs_f64());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{told}");
        for line in told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let seconds = line["milliseconds"].as_f64().unwrap_or(0.0) / 1e3;
            match (line["event"].as_str(), line["step"].as_str()) {
                (Some("ready"), _) => ready.push(seconds),
                (Some("step"), Some(step)) => match steps.iter_mut().find(|one| one.0 == step) {
                    Some((_, values)) => values.push(seconds),
                    None => steps.push((step.to_owned(), vec![seconds])),
                },
                _ => {}
            }
        }
    }
    let mut add = |name: String, values: Vec<f64>, most: f64| {
        table.add(Row {
            name,
            direct: None,
            floor: None,
            ours: median(values),
            paired: None,
            goal: Goal::Below(most),
        });
    };
    add("command to tunnel, s".into(), ready, 2.5);
    for (step, values) in steps {
        add(format!("its step: {step}, s"), values, 2.5);
    }
    add("docker run --rm IMAGE true, s".into(), whole, 4.0);
    Ok(())
}
