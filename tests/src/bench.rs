//! `bench [ROUNDS]`: every figure in one run, ratios against what no such design can beat.
//!
//! ```text
//!  direct   client ───────────────────────────────────────────► server
//!  floor    client ─► relay in the app's namespace ═ unix socket ═ relay in the target's ─► server
//!  ours     client ─► mirrord's proxy              ═   tunnel    ═ mirrord's agent       ─► server
//! ```
//!
//! The three take turns in every round, so that whatever else the machine does hits them alike;
//! a figure is the median of its rounds.

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
    let rounds = match std::env::args().nth(1) {
        Some(word) => word.parse().context("bench [ROUNDS]")?,
        None => 5,
    };
    let mut table = Table::default();
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
