//! `--explain`: the plan for a line, and nothing started.
//!
//! ```text
//!   options, words ──► Explanation ──► text or JSON on standard output
//! ```

mod calls;
mod flags;
mod text;

use std::ffi::OsString;

use clap::ValueEnum;
use mirrord_protocol::control::IncomingMode;
use serde::Serialize;

use self::calls::Calls;
use self::flags::FlagPlan;
use crate::args::Options;
use crate::docker_run::{Client, DockerRun, Line, Rehomed, parse, rehome};
use crate::engine::Endpoint;
use crate::engine::endpoint::{self, EndpointError, Sources};
use crate::failure::Failure;
use crate::front;
use crate::session::plane::PlaneArg;
use crate::settings::Settings;
use crate::target::TargetName;

/// What stands for a session's id, which is not known before.
const ID: &str = "ID";

/// `-o` of `--explain`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON value.
    Json,
}

/// What would be done for a line.
#[derive(Debug, Default, Serialize)]
pub struct Explanation {
    /// Whose place is taken, and what happens to the traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    /// Who redirects.
    #[serde(skip_serializing_if = "Option::is_none")]
    plane: Option<&'static str>,
    /// Which engine, and who said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    /// Where each flag goes.
    flags: Vec<FlagPlan>,
    /// What is asked of the engine and the cluster, in order.
    calls: Calls,
    /// What is run then.
    command: Vec<String>,
    /// Why nothing would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Failure>,
}

impl Explanation {
    /// Why nothing would be run, if that is so.
    pub fn refused(&self) -> Option<&Failure> {
        self.refused.as_ref()
    }

    /// What is printed of it.
    pub fn text(&self, output: Output) -> String {
        match output {
            Output::Text => self.to_string(),
            Output::Json => format!("{:#}\n", serde_json::json!(self)),
        }
    }

    fn refuse(&mut self, failure: Failure) {
        self.refused.get_or_insert(failure);
    }

    fn settle(&mut self, settings: &Settings, plane: &'static str) {
        let traffic = match settings.incoming.mode {
            IncomingMode::Mirror => "with a copy of its traffic",
            IncomingMode::Steal => "with its traffic",
            IncomingMode::Off => "without its traffic",
        };
        self.plane = Some(plane);
        self.place = Some(match &settings.target {
            Some(target) => format!("in the place of {target}, {traffic}"),
            None => "in the cluster's network, without a target".to_owned(),
        });
    }

    fn find_engine(&mut self, found: Result<Endpoint, EndpointError>) {
        match found {
            Ok(endpoint) => self.engine = Some(format!("{} ({})", endpoint.host, endpoint.source)),
            Err(error) => self.refuse(error.into()),
        }
    }
}

/// Explains the words behind `docker`.
pub fn container(options: &Options, client: &'static Client, words: &[OsString]) -> Explanation {
    let mut explanation = Explanation::default();
    match parse::line(client, words) {
        Ok(Line::Docker) => {
            let words = words.iter().map(|word| word.to_string_lossy().into_owned());
            explanation.command = [client.program.to_owned()].into_iter().chain(words).collect();
        }
        Ok(Line::Run(mut run)) => {
            flags::mask(&mut run);
            explain_run(&mut explanation, options, &run);
        }
        Err(error) => explanation.refuse(error.failure(client)),
    }
    explanation.refused = explanation.refused.map(|failure| failure.with_program(client.program));
    explanation
}

fn explain_run(explanation: &mut Explanation, options: &Options, run: &DockerRun) {
    let sorted = rehome::rehome(run).map_err(Failure::from);
    explanation.flags = flags::of(run, sorted.is_err());
    let settings = Settings::of(options).map_err(|failure| explanation.refuse(failure)).ok();
    let (rehomed, flags) = match sorted {
        Ok(sorted) => sorted,
        Err(failure) => {
            explanation.refuse(failure);
            (Rehomed::default(), Vec::new())
        }
    };
    explanation.find_engine(endpoint::of(run));
    let Some(settings) = settings else { return };
    explanation.settle(
        &settings,
        match settings.plane {
            PlaneArg::Auto => {
                "the kernel; the preload library where the engine or the kernel does not allow that"
            }
            PlaneArg::Netns => "the kernel",
            PlaneArg::Layer => "the preload library",
        },
    );
    match front::DockerLine::new(run, flags, front::UsersVariables::default()) {
        Err(failure) => explanation.refuse(failure),
        Ok(_) if explanation.refused.is_some() => {}
        Ok(docker) => {
            explanation.calls = calls::of_container(&settings, &rehomed, &run.image());
            explanation.command = command(run.client, &docker, &settings);
        }
    }
}

/// The line that docker gets.
fn command(client: &Client, docker: &front::DockerLine, settings: &Settings) -> Vec<String> {
    let joined = front::Joined {
        sidecar: format!("mirrord-proxy-{ID}"),
        session: ID.to_owned(),
        variables: match settings.env.wanted() {
            true => vec!["--env-file=…".into()],
            false => Vec::new(),
        },
        layer: match settings.loads_layer() {
            true => docker.layer(ID, None),
            false => Vec::new(),
        },
    };
    let words = docker.words(&joined).into_iter();
    let words = words.map(|word| word.to_string_lossy().into_owned());
    [client.program.to_owned()].into_iter().chain(words).collect()
}

/// Explains a command of this machine.
pub fn process(options: &Options, words: &[OsString]) -> Explanation {
    let mut explanation = Explanation::default();
    match Settings::of(options) {
        Ok(settings) => {
            explanation.settle(&settings, "the preload library");
            if let Some(TargetName::Container(_)) = settings.target {
                explanation.find_engine(Sources::of_environment().resolve());
            }
            if explanation.refused.is_none() {
                explanation.calls = calls::of_process(&settings);
            }
        }
        Err(failure) => explanation.refuse(failure),
    }
    if explanation.refused.is_none() {
        let words = words.iter().map(|word| word.to_string_lossy().into_owned());
        explanation.command = words.collect();
    }
    explanation
}
