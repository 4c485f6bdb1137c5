//! `bench [cluster] [ROUNDS]`: every figure in one run, ratios against what no such design can beat.
//!
//! ```text
//!  direct   client ───────────────────────────────────────────► server
//!  floor    client ─► relay in the app's namespace ═ unix socket ═ relay in the target's ─► server
//!  ours     client ─► mirrord's proxy              ═   tunnel    ═ mirrord's agent       ─► server
//! ```
//!
//! In a cluster the floor is `kubectl port-forward`, from this machine to the same server.
//!
//! The three take turns in every round, so that whatever else the machine does hits them alike;
//! a figure is the median of its rounds.

mod cluster;
mod rows;
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
    let in_cluster = words.first().is_some_and(|word| word == "cluster");
    if in_cluster {
        words.remove(0);
    }
    let rounds = match words.first() {
        Some(word) => word.parse().context("bench [cluster] [ROUNDS]")?,
        None => 5,
    };
    if in_cluster { cluster::measure(rounds) } else { beside_a_container(rounds) }
}

fn beside_a_container(rounds: usize) -> Result<()> {
    let mut table = Table::beside("floor");
    let parts: [Part; 4] = [through, rows::memory, rows::start, rows::mirrored];
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
    let stage = Stage::open(lab)?;
    rows::outgoing(&stage, rounds, table)?;
    rows::incoming(&stage, rounds, table)
}
