//! What is measured.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::stage::{FILES, Stage, Way, Ways};
use super::table::{Goal, Row, Table, median};
use crate::lab::{Lab, PROBE};
use crate::mirrord::Session;
use crate::scene::Scene;
use crate::wait;

const IDLE: u32 = 10_000;
const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

/// How much is done for a figure.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Bytes of a transfer.
    pub bulk: u64,
    /// Echoes for a latency.
    pub round_trips: u32,
}

/// Between containers of one machine.
const LOCAL: Load = Load { bulk: 1_000_000_000, round_trips: 10_000 };

/// A figure of one way, how it is measured, and the goal.
pub struct Figure {
    /// With its unit.
    pub name: &'static str,
    /// By the probe at one end.
    pub measure: fn(&Way<'_>, Load) -> Result<f64>,
    /// As a share of the floor.
    pub goal: Goal,
}

/// Between containers of one machine.
const FIGURES: [Figure; 6] = [
    Figure { name: "upload, Gbit/s", measure: upload, goal: Goal::AtLeast(0.9) },
    Figure { name: "download, Gbit/s", measure: download, goal: Goal::AtLeast(0.9) },
    Figure { name: "64-byte echo p50, µs", measure: p50, goal: Goal::AtMost(1.15) },
    Figure { name: "64-byte echo p99, µs", measure: p99, goal: Goal::AtMost(1.25) },
    Figure { name: "connect + echo p50, µs", measure: begin, goal: Goal::Over(60.0) },
    Figure { name: "connect + echo + close, 1/s", measure: rate, goal: Goal::AtLeast(0.9) },
];
/// From here on they are about connecting.
const CONNECTING: usize = 4;

/// The app's own connections, and those of the target's clients, stolen.
///
/// # Errors
/// If one fails.
pub fn through(stage: &Stage<'_>, rounds: usize, table: &mut Table) -> Result<()> {
    each_way(stage, &FIGURES, rounds, table)
}

/// The same, but only what it takes to connect.
///
/// # Errors
/// If one fails.
pub fn connecting(stage: &Stage<'_>, rounds: usize, table: &mut Table) -> Result<()> {
    each_way(stage, &FIGURES[CONNECTING..], rounds, table)
}

fn each_way(stage: &Stage<'_>, figures: &[Figure], rounds: usize, table: &mut Table) -> Result<()> {
    compare(&stage.outgoing()?, (figures, LOCAL), rounds, table)?;
    compare(&stage.incoming(), (figures, LOCAL), rounds, table)
}

/// A row for each figure and each of ours: direct, floor and all of them take turns.
///
/// # Errors
/// If one can't be measured.
pub fn compare(
    ways: &Ways<'_>,
    (figures, load): (&[Figure], Load),
    rounds: usize,
    table: &mut Table,
) -> Result<()> {
    for figure in figures {
        let ours = ways.ours.iter().map(|(_, way)| way);
        let all = [&ways.direct, &ways.floor].into_iter().chain(&ways.one).chain(ours);
        let all: Vec<_> = all.collect();
        let mut values = vec![Vec::new(); all.len()];
        for _ in 0..rounds {
            for (way, values) in all.iter().zip(&mut values) {
                values.push((figure.measure)(way, load).with_context(|| figure.name)?);
            }
        }
        let mut values = values.into_iter().map(median);
        let (direct, floor) = (values.next(), values.next());
        let one = ways.one.as_ref().and_then(|_| values.next());
        for ((kind, _), ours) in ways.ours.iter().zip(values) {
            let name = format!("{kind}: {}", figure.name);
            table.add(Row { name, direct, floor, ours, paired: None, goal: figure.goal });
            if one.is_some() {
                let name = format!("{kind}, beside one relay: {}", figure.name);
                let goal = figure.goal;
                table.add(Row { name, direct, floor: one, ours, paired: None, goal });
            }
        }
    }
    Ok(())
}

fn ask(way: &Way<'_>, command: &str, words: &str, field: &str) -> Result<f64> {
    let answer = way.who.must(&format!("{command} {} {words}", way.at))?;
    answer[field].as_f64().with_context(|| format!("no {field} in {answer}"))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn upload(way: &Way<'_>, load: Load) -> Result<f64> {
    Ok(load.bulk as f64 * 8e-9 / ask(way, "drain", &load.bulk.to_string(), "seconds")?)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn download(way: &Way<'_>, load: Load) -> Result<f64> {
    Ok(load.bulk as f64 * 8e-9 / ask(way, "pour", &load.bulk.to_string(), "seconds")?)
}

pub fn p50(way: &Way<'_>, load: Load) -> Result<f64> {
    ask(way, "latency", &load.round_trips.to_string(), "p50")
}

pub fn p99(way: &Way<'_>, load: Load) -> Result<f64> {
    ask(way, "latency", &load.round_trips.to_string(), "p99")
}

/// The floor's relays accept before they have connected; ours know the outcome first.
pub fn begin(way: &Way<'_>, load: Load) -> Result<f64> {
    ask(way, "begin", &(load.round_trips / 3).to_string(), "p50")
}

pub fn rate(way: &Way<'_>, _load: Load) -> Result<f64> {
    ask(way, "rate", "2 4", "per_second")
}

/// Memory at rest, and for each of ten thousand connections that do nothing.
///
/// # Errors
/// If a session fails.
pub fn memory(lab: &Lab, _rounds: usize, table: &mut Table) -> Result<()> {
    let scene = Scene::open(lab)?;
    // Enough files for every connection, on every side of it.
    let server = lab.container("server").on(&scene.inner).with(FILES).probe()?;
    let session = scene.mirrord().with(["--steal"]).docker(FILES).probe("idle")?;
    session.app().must("serve keep 0.0.0.0:7100")?;
    server.probe().must("serve keep 0.0.0.0:7100")?;
    wait::until("the stolen port", || {
        server.probe().must(&format!("connect {}", scene.at(7100))).map(Some)
    })?;
    let start = resident(&session)?;
    for (part, bytes, most) in [("proxy", start.0, 10.0), ("agent", start.1, 8.0)] {
        let name = format!("{part} at rest, MiB");
        table.add(Row {
            name,
            direct: None,
            floor: None,
            ours: bytes / MIB,
            paired: None,
            goal: Goal::Below(most),
        });
    }
    let before = start.0 + start.1;
    session.app().must(&format!("idle {}:7100 {IDLE}", server.address()?))?;
    let out = resident(&session)?;
    per_connection("outgoing", out.0 + out.1 - before, table);
    session.app().must("release")?;
    server.probe().must("close 0.0.0.0:7100")?;
    server.probe().must(&format!("idle {} {IDLE}", scene.at(7100)))?;
    let into = resident(&session)?;
    per_connection("stolen", into.0 + into.1 - before, table);
    Ok(())
}

fn per_connection(kind: &str, grown: f64, table: &mut Table) {
    table.add(Row {
        name: format!("{kind}: an idle connection of {IDLE}, KiB"),
        direct: None,
        floor: None,
        ours: grown / f64::from(IDLE) / KIB,
        paired: None,
        goal: Goal::Below(16.0),
    });
}

/// Of proxy and agent, in bytes.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn resident(session: &Session<'_>) -> Result<(f64, f64)> {
    Ok((session.process("proxy")?.rss as f64, session.process("agent")?.rss as f64))
}

/// `docker run --rm IMAGE true`, with and without.
///
/// # Errors
/// If a run fails.
pub fn start(lab: &Lab, rounds: usize, table: &mut Table) -> Result<()> {
    let scene = Scene::open(lab)?;
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds * 2 {
        let begun = Instant::now();
        lab.docker.run(&["run", "--rm", PROBE, "true"])?;
        plain.push(begun.elapsed().as_secs_f64());
        let name = lab.name("quick");
        let mut command = scene.mirrord().command(&name, PROBE, &["true"]);
        let begun = Instant::now();
        let output = command.output()?;
        ours.push(begun.elapsed().as_secs_f64());
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    table.add(Row {
        name: "docker run --rm IMAGE true, s".into(),
        direct: Some(median(plain)),
        floor: None,
        ours: median(ours),
        paired: None,
        goal: Goal::AtMost(2.0),
    });
    Ok(())
}
