//! What the target's clients see of its being mirrored.
//!
//! ```text
//!  port 7001   alone   mirrored   alone   mirrored   alone  …
//!                └────────┴─────────┘
//!                a pair: the mirrored figure against the mean of its neighbours
//! ```
//!
//! The session stands all the time; its app opens and closes the port. What the machine does by
//! itself shows in the same statistic of the turns that are alone.

use anyhow::Result;

use super::rows::{Figure, Load, p50, p99, rate, upload};
use super::stage::Way;
use super::table::{Goal, Row, Table, median};
use crate::lab::Lab;
use crate::mirrord::Session;
use crate::scene::Scene;
use crate::wait;

/// Enough to outlast the tenth of a second in which a crowd is noticed.
const LOAD: Load = Load { bulk: 4_000_000_000, round_trips: 20_000 };
/// Pairs for each round that is asked for.
const PAIRS: usize = 4;
/// How `/proc/net/packet` shows a packet socket that receives.
const RECEIVES: [&str; 2] = [" 0800 ", " 86dd "];

const FIGURES: [Figure; 4] = [
    Figure { name: "upload, Gbit/s", measure: upload, goal: Goal::AtLeast(0.97) },
    Figure { name: "64-byte echo p50, µs", measure: p50, goal: Goal::AtMost(1.03) },
    Figure { name: "64-byte echo p99, µs", measure: p99, goal: Goal::AtMost(1.03) },
    Figure { name: "connect + echo + close, 1/s", measure: rate, goal: Goal::AtLeast(0.97) },
];

/// A row for each figure, and one for what it differs by when nobody mirrors.
///
/// # Errors
/// If one can't be measured.
pub fn measure(lab: &Lab, rounds: usize, table: &mut Table) -> Result<()> {
    let scene = Scene::open(lab)?;
    scene.target.probe().must("serve quiet 0.0.0.0:7001 original")?;
    let session = scene.mirrord().probe("reader")?;
    for figure in &FIGURES {
        let (alone, mirrored) = turns(&scene, &session, figure, rounds * PAIRS)?;
        let inner: Vec<_> = alone.iter().copied().skip(1).step_by(2).collect();
        let outer: Vec<_> = alone.iter().copied().step_by(2).collect();
        table.add(row(("alone", figure.name), &outer, &inner, Goal::None));
        table.add(row(("mirrored", figure.name), &alone, &mirrored, figure.goal));
    }
    Ok(())
}

/// Figures of turns alone, and of the turn between each two of them.
fn turns(
    scene: &Scene<'_>,
    session: &Session<'_>,
    figure: &Figure,
    pairs: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let way = Way { who: scene.client(), at: scene.at(7001) };
    let mut alone = vec![(figure.measure)(&way, LOAD)?];
    let mut mirrored = Vec::new();
    for _ in 0..pairs {
        session.app().must("serve quiet 0.0.0.0:7001 local")?;
        until_mirrored(scene, true)?;
        mirrored.push((figure.measure)(&way, LOAD)?);
        session.app().must("close 0.0.0.0:7001")?;
        until_mirrored(scene, false)?;
        alone.push((figure.measure)(&way, LOAD)?);
    }
    Ok((alone, mirrored))
}

fn until_mirrored(scene: &Scene<'_>, on: bool) -> Result<()> {
    wait::until_true("the port's capture", || {
        let sockets = scene.target.probe().must("read /proc/net/packet")?;
        let text = sockets["text"].as_str().unwrap_or_default();
        Ok(on == RECEIVES.iter().any(|protocol| text.contains(protocol)))
    })
}

fn row((kind, name): (&str, &str), around: &[f64], between: &[f64], goal: Goal) -> Row {
    let mut ratios = ratios(around, between);
    ratios.sort_by(f64::total_cmp);
    let at = |quarter: usize| ratios.get(ratios.len() * quarter / 4).copied().unwrap_or(f64::NAN);
    Row {
        name: format!("{kind}: {name}, half of the pairs {:.3}–{:.3}", at(1), at(3)),
        direct: Some(median(around.to_vec())),
        floor: None,
        ours: median(between.to_vec()),
        paired: Some(median(ratios)),
        goal,
    }
}

/// Each figure against the mean of those right before and after it.
fn ratios(around: &[f64], between: &[f64]) -> Vec<f64> {
    let means = around.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    between.iter().zip(means).map(|(value, mean)| value / mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drift_of_the_machine_is_no_difference() {
        assert_eq!(ratios(&[1.0, 3.0, 5.0], &[2.0, 4.0]), [1.0, 1.0]);
        assert_eq!(ratios(&[1.0, 1.0, 1.0], &[1.5, 0.5]), [1.5, 0.5]);
    }
}
