//! What the preload library costs by itself: to be loaded, and in each call that it hooks.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::table::{Goal, Row, Table, median};
use crate::lab::Lab;
use crate::mirrord;
use crate::scene::Scene;
use crate::toolbox::{PYTHON, all, has, path};

/// Milliseconds that it may take to load.
const LOAD: f64 = 0.5;
/// Starts of a program, of which the fastest counts.
const STARTS: u32 = 30;
/// Times that a call is made.
const CALLS: &str = "20000";

/// A process with the library against one with an empty library.
///
/// # Errors
/// If a program can't be started.
pub fn load(_lab: &Lab, rounds: usize, table: &mut Table) -> Result<()> {
    let empty = path("empty.so").into();
    let programs = [
        ("C", path("app")),
        ("Go with cgo", path("go-cgo")),
        ("Node 10", path("node10")),
        ("the machine's Node", "node".into()),
        ("Python", PYTHON.into()),
    ];
    for (name, program) in programs {
        if !all(&format!("the load of {name}"), &[&program])? {
            continue;
        }
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (mut least, mut least_with) = (f64::MAX, f64::MAX);
            for _ in 0..STARTS {
                least = least.min(start(&program, &empty)?);
                least_with = least_with.min(start(&program, &library())?);
            }
            without.push(least);
            with.push(least_with);
        }
        table.add(Row {
            name: format!("layer: a process of {name}, ms"),
            direct: Some(median(without)),
            floor: None,
            ours: median(with),
            paired: None,
            goal: Goal::Over(LOAD),
        });
    }
    Ok(())
}

/// The library as it is delivered, beside the executable.
fn library() -> PathBuf {
    mirrord::binary().with_file_name("libmirrord_layer.so")
}

/// Milliseconds from the start of a program that says who it is to its end.
fn start(program: &str, library: &PathBuf) -> Result<f64> {
    let mut command = Command::new(program);
    // A proxy is asked for nothing before the first call that is hooked.
    command.arg("--version").env("LD_PRELOAD", library).env("MIRRORD_LAYER", "mirrord-bench");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    command.status().with_context(|| format!("start {program}"))?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Each hooked call of a process of `mirrord exec` against the same without mirrord.
///
/// # Errors
/// If a call fails.
pub fn calls(lab: &Lab, rounds: usize, table: &mut Table) -> Result<()> {
    if !has("app") {
        return all("hooked calls", &["app"]).map(drop);
    }
    let scene = Scene::open(lab)?;
    let words = [&path("app"), "bench", "8000", CALLS];
    let mut rows: Vec<(String, Vec<f64>, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        let output = Command::new(words[0]).args(&words[1..]).output()?;
        let without = nanos(&String::from_utf8(output.stdout)?)?;
        let done = scene.exec().with(["--steal"]).finish(&words)?;
        let with = nanos(&done.stdout).with_context(|| format!("{done:?}"))?;
        ensure!(with.len() == without.len(), "{done:?}");
        for (at, ((name, without), (_, with))) in without.into_iter().zip(with).enumerate() {
            if rows.len() == at {
                rows.push((name, Vec::new(), Vec::new()));
            }
            rows[at].1.push(without);
            rows[at].2.push(with);
        }
    }
    for (name, without, with) in rows {
        table.add(Row {
            paired: None,
            goal: Goal::Over(most(&name)),
            name: format!("layer: {name}, ns"),
            direct: Some(median(without)),
            floor: None,
            ours: median(with),
        });
    }
    Ok(())
}

/// Nanoseconds that a call may take longer: a question to the proxy, or a few to the kernel.
fn most(call: &str) -> f64 {
    if call == "listen" || call.contains("to a port") { 150_000.0 } else { 2_000.0 }
}

fn nanos(text: &str) -> Result<Vec<(String, f64)>> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let calls =
        lines.filter_map(|line| Some((line["call"].as_str()?.into(), line["nanos"].as_f64()?)));
    let calls: Vec<_> = calls.collect();
    ensure!(!calls.is_empty(), "no figures in {text}");
    Ok(calls)
}
