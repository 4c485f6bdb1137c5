//! Where each flag of a line goes, and why.

use serde::Serialize;

use crate::docker_run::parse::Flag;
use crate::docker_run::table::Place;
use crate::docker_run::{DockerRun, rehome};

/// One flag's place.
#[derive(Debug, Serialize)]
pub struct FlagPlan {
    /// The flag as one word; no value of a variable.
    pub flag: String,
    /// Where it goes.
    pub place: Where,
    /// Why.
    pub why: String,
}

/// Where a flag goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// To docker, as it is.
    Passes,
    /// To the sidecar.
    Moves,
    /// To docker, and looked at on the way.
    Handled,
    /// Nowhere.
    Refused,
}

/// Takes the values of variables out of a line.
pub fn mask(run: &mut DockerRun) {
    for flag in run.flags.iter_mut().filter(|flag| flag.spec.long == "env") {
        if let Some((name, _)) = flag.text().split_once('=') {
            flag.value = Some(format!("{name}=…").into());
        }
    }
}

/// The flags of a line, those between `docker` and `run` first.
pub fn of(run: &DockerRun, refused: bool) -> Vec<FlagPlan> {
    run.globals.iter().chain(&run.flags).map(|flag| of_flag(flag, run, refused)).collect()
}

fn of_flag(flag: &Flag, run: &DockerRun, refused: bool) -> FlagPlan {
    let alone = DockerRun {
        client: run.client,
        globals: Vec::new(),
        verb: run.verb.clone(),
        flags: vec![flag.clone()],
        rest: run.rest.clone(),
    };
    let (place, why) = match (flag.spec.place, rehome::rehome(&alone)) {
        (_, Err(error)) if refused => (Where::Refused, error.to_string()),
        (Place::Sidecar(why), _) => (Where::Moves, why.to_owned()),
        (Place::Handled(why), Ok((_, left))) if left.is_empty() => (Where::Moves, why.to_owned()),
        (Place::Handled(why) | Place::Refused(why, _), _) => (Where::Handled, why.to_owned()),
        (place @ Place::Pass, _) => (Where::Passes, place.why().to_owned()),
    };
    FlagPlan { flag: flag.word().to_string_lossy().into_owned(), place, why }
}
