//! `bench [cluster|connect|layer|mirrored] [ROUNDS]`: every figure in one run, ratios against what no such
//! design can beat. `bench soak MINUTES` is what it says.
//!
//! ```text
//!  direct   client ───────────────────────────────────────────► server
//!  floor    client ─► relay in the app's namespace ═ unix socket ═ relay in the target's ─► server
//!  one      client ─► relay in the target's namespace ───────────────────────────────► server
//!  ours     client ─► mirrord's proxy              ═   tunnel    ═ mirrord's agent       ─► server
//! ```
//!
//! In a cluster the floor is `kubectl port-forward`, from this machine to the same server.
//!
//! They take turns in every round, so that whatever else the machine does hits them alike;
//! a figure is the median of its rounds.

mod cluster;
mod layer;
mod mirrored;
mod rows;
mod soak;
mod stage;
mod table;

use anyhow::{Context, Result};

use crate::lab::Lab;
use stage::Stage;
use table::Table;

/// Measures and prints the table.
///
/// # Errors
/// If there is no engine, or something measured fails.
pub fn main() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let which = match words.first().map(String::as_str) {
        Some("cluster" | "connect" | "layer" | "mirrored" | "soak") => words.remove(0),
        _ => String::new(),
    };
    let rounds = match words.first() {
        Some(word) => word.parse().context("bench [cluster|connect|layer|mirrored] [ROUNDS]")?,
        None => 5,
    };
    match which.as_str() {
        "cluster" => cluster::measure(rounds),
        "connect" => beside_a_container(&[connecting], rounds),
        "layer" => beside_a_container(&LAYER, rounds),
        "soak" => soak::run(rounds as u64),
        "mirrored" => beside_a_container(&[mirrored::measure], rounds),
        _ => beside_a_container(&[&LAYER[..], &REST].concat(), rounds),
    }
}

const LAYER: [Part; 3] = [layer::load, layer::calls, through];
const REST: [Part; 3] = [rows::memory, rows::start, mirrored::measure];

fn beside_a_container(parts: &[Part], rounds: usize) -> Result<()> {
    let mut table = Table::beside("floor");
    for part in parts {
        let Some(lab) = Lab::open("the bench")? else {
            return Ok(());
        };
        part(&lab, rounds, &mut table)?;
    }
    print!("{table}");
    Ok(())
}

/// Measures in a lab of its own.
type Part = fn(&Lab, usize, &mut Table) -> Result<()>;

fn through(lab: &Lab, rounds: usize, table: &mut Table) -> Result<()> {
    rows::through(&Stage::open(lab)?, rounds, table)
}

fn connecting(lab: &Lab, rounds: usize, table: &mut Table) -> Result<()> {
    rows::connecting(&Stage::open(lab)?, rounds, table)
}
