//! `mirrord doctor`: what this machine and the cluster allow, and what a crash left there.
//!
//! ```text
//!  of_machine  docker's command, the plugin      of_cluster  rights, pod security
//!  of_engine   engines, kernel, capabilities     left_over   what nobody keeps, and its removal
//!                                                report      how it is told
//! ```

mod left_over;
mod of_cluster;
mod of_engine;
mod of_machine;
mod report;

use std::io::{IsTerminal, Write};

use clap::{Args, ValueEnum};

use self::of_engine::OfEngine;
use self::report::{Item, Report};
use crate::args::Options;
use crate::cluster::rights::role_yaml;
use crate::cluster::settings::{AgentMode, ClusterSettings};
use crate::failure::Failure;
use crate::list::Place;
use crate::settings::{Settings, Voice};

/// What is looked at, and what is done about it.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Which cluster.
    #[command(flatten)]
    pub place: Place,
    /// The agents' namespace; by default the target's
    #[arg(short, long, value_name = "NAMESPACE")]
    pub agent_namespace: Option<String>,
    /// Remove what nobody keeps, and make 'docker mirrord' a command
    #[arg(long)]
    pub fix: bool,
    /// Print the Role that this mode needs and nothing else, for 'kubectl apply -f -'
    #[arg(long, value_enum, value_name = "MODE", conflicts_with_all = ["fix", "output"])]
    pub role: Option<AgentMode>,
    /// The form of the report
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines.
    #[default]
    Text,
    /// One object.
    Json,
}

/// Looks at everything; whether sessions can run.
///
/// # Errors
/// The report itself could not be made or written.
pub fn run(args: &DoctorArgs, options: &Options) -> Result<bool, Failure> {
    let mut options = args.place.over(options);
    if args.agent_namespace.is_some() {
        options.cluster.agent_namespace.clone_from(&args.agent_namespace);
    }
    let settings = Settings::of(&options)?.cluster;
    let cannot = |error: std::io::Error| Failure::caused_by("cannot make the report", &error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (text, fit) = runtime.map_err(cannot)?.block_on(async {
        match args.role {
            Some(mode) => (role(mode, &settings).await, true),
            None => {
                let report = examine(&settings, args.fix).await;
                let color = Voice::of(&options).color && std::io::stdout().is_terminal();
                let text = match args.output {
                    Output::Text => report.text(color),
                    Output::Json => report.json(),
                };
                (text, report.fit)
            }
        }
    });
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(cannot)?;
    Ok(fit)
}

/// The Role of a mode, in the namespaces that the settings mean.
async fn role(mode: AgentMode, settings: &ClusterSettings) -> String {
    let target = match &settings.namespace {
        Some(namespace) => namespace.clone(),
        None => of_cluster::default_namespace(settings).await,
    };
    let agent = settings.agent.namespace.as_ref().unwrap_or(&target);
    role_yaml(mode, &target, agent)
}

async fn examine(settings: &ClusterSettings, fix: bool) -> Report {
    let (engine, podman, cluster) =
        tokio::join!(of_engine::engine(), of_engine::podman(), of_cluster::cluster(settings));
    let (podman, service) = podman.unzip();
    let (machine, has_client) = of_machine::machine(fix, podman.is_some());
    let engine_is_fit = has_client && engine.fit;
    // Whoever has podman may well have nothing else.
    let podman_does = engine.is_default && podman.as_ref().is_some_and(|podman| podman.fit);
    let engines: Vec<OfEngine> = [Some(engine), podman].into_iter().flatten().collect();
    let mut left = left_over::of_machine(fix);
    for engine in engines.iter().filter_map(|found| found.engine.as_ref()) {
        left.extend(left_over::of_engine(engine, fix).await);
    }
    if let Some(found) = &cluster.cluster {
        left.extend(left_over::of_cluster(found, &cluster.namespaces, fix).await);
    }
    if let Some(service) = service.flatten() {
        service.end().await;
    }
    if left.is_empty() {
        left.push(Item::fine("left over", "nothing"));
    }
    let mut items = machine;
    for engine in engines {
        let spare = !engine.fit && podman_does;
        items.extend(engine.items.into_iter().map(|item| if spare { item.spare() } else { item }));
    }
    items.extend(cluster.items);
    items.extend(left);
    let fit = (engine_is_fit || podman_does) && cluster.fit;
    Report { items, roles: cluster.roles, fit }
}
