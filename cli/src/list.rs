//! `mirrord ls`: what can be a target.

use std::str::FromStr;

use bollard::query_parameters::ListContainersOptionsBuilder;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::args::Options;
use crate::cluster::connect::{Cluster, ClusterError};
use crate::cluster::list::{self, Entry, Query};
use crate::cluster::settings::Access;
use crate::engine::clean::SESSION_LABEL;
use crate::engine::connect::EngineError;
use crate::engine::endpoint::Sources;
use crate::engine::{Endpoint, Engine, podman};
use crate::failure::{Failure, nearest};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::target::{CONTAINER, Kind};

/// What is listed, and how.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Which cluster.
    #[command(flatten)]
    pub place: Place,
    /// Of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Only this type: container, pod, deployment, …
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub only: Option<Type>,
    /// The form of the list
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
}

/// Which cluster, where a command stands for itself.
#[derive(Debug, Clone, Default, Args)]
pub struct Place {
    /// The namespace; by default the context's
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig; by default the current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig; by default as kubectl finds it
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Accept any certificate of the API server
    #[arg(short = 'c', long)]
    pub accept_invalid_certificates: bool,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    #[default]
    Table,
    /// An array of objects.
    Json,
    /// What -t takes, one a line.
    Name,
}

/// A type of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Of Docker.
    Container,
    /// Of a cluster.
    Cluster(Kind),
}

impl FromStr for Type {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        if word == CONTAINER || word == "containers" {
            return Ok(Self::Container);
        }
        Kind::of_word(word).map(Self::Cluster).ok_or_else(|| {
            let names: Vec<&str> = Kind::all().map(Kind::name).chain([CONTAINER]).collect();
            match nearest(word, names.iter().copied()).first() {
                Some(near) => format!("did you mean {near}?"),
                None => format!("types are {}", names.join(", ")),
            }
        })
    }
}

impl Place {
    /// Options before the command, and those of the command above them.
    pub fn over(&self, options: &Options) -> Options {
        let mut all = options.clone();
        let cluster = &mut all.cluster;
        let above = |own: &Option<String>, before: &mut Option<String>| {
            if own.is_some() {
                before.clone_from(own);
            }
        };
        above(&self.namespace, &mut cluster.target_namespace);
        above(&self.context, &mut cluster.context);
        if self.kubeconfig.is_some() {
            cluster.kubeconfig.clone_from(&self.kubeconfig);
        }
        cluster.accept_invalid_certificates |= self.accept_invalid_certificates;
        // What is listed does not depend on the target that a session would have.
        all.target = None;
        all
    }
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<String>,
}

impl From<Entry> for Row {
    fn from(entry: Entry) -> Self {
        Self {
            kind: entry.kind.name(),
            name: entry.name,
            namespace: Some(entry.namespace),
            containers: entry.containers,
        }
    }
}

/// Lists targets of Docker and of the cluster.
///
/// # Errors
/// Neither could be asked, or one that was asked for by name could not.
pub fn run(args: &ListArgs, options: &Options, progress: &mut Progress) -> Result<(), Failure> {
    let settings = Settings::of(&args.place.over(options))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::caused_by("cannot list targets", &error))?;
    let access = &settings.cluster.access;
    let namespace = settings.cluster.namespace.as_deref();
    let (docker, cluster) = runtime.block_on(async {
        tokio::join!(
            async { if args.wants_docker() { Some(containers().await) } else { None } },
            async {
                match args.wants_cluster() {
                    true => Some(workloads(args, access, namespace).await),
                    false => None,
                }
            },
        )
    });
    let named = args.all_namespaces || namespace.is_some() || access.context.is_some();
    let rows = gather(docker, cluster, named, progress)?;
    let text = text(&rows, args.output);
    crate::output::write(
        &text.map_err(|error| Failure::caused_by("cannot write the list", &error))?,
    )
}

impl ListArgs {
    fn wants_docker(&self) -> bool {
        self.only.is_none_or(|only| only == Type::Container)
    }

    fn wants_cluster(&self) -> bool {
        self.only.is_none_or(|only| only != Type::Container)
    }
}

/// What one of the two sides gave.
type Side = Option<Result<Found, Failure>>;

#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    warnings: Vec<String>,
    /// Why there is nothing to ask.
    absent: Option<String>,
    /// What to know about what was found.
    note: Option<String>,
}

/// One list of both sides; a side that is missing is no failure if the other one is there.
fn gather(
    docker: Side,
    cluster: Side,
    named: bool,
    progress: &mut Progress,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let alone = docker.is_none() || cluster.is_none();
    let (mut asked, mut failure) = (0, None);
    for (side, needed) in [(docker, alone), (cluster, alone || named)] {
        match side {
            None => {}
            Some(Ok(found)) => {
                asked += usize::from(found.absent.is_none());
                found.warnings.iter().for_each(|text| progress.warning(text));
                found.absent.iter().chain(&found.note).for_each(|text| progress.note(text));
                rows.extend(found.rows);
            }
            Some(Err(error)) if needed => return Err(error),
            Some(Err(error)) => {
                let cause = error.causes.first().map(|cause| format!(": {cause}"));
                progress.warning(&format!("{}{}", error.sentence, cause.unwrap_or_default()));
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(failure) if asked == 0 => Err(failure),
        _ => Ok(rows),
    }
}

/// Docker's; those of podman on a machine where no docker answers.
async fn containers() -> Result<Found, Failure> {
    let docker = Sources::of_environment().resolve()?;
    let silent = match containers_of(&docker).await {
        Err(failure) if docker.is_default() => failure,
        names => return Ok(found(names?, None)),
    };
    let Some(Ok(endpoint)) = podman::of_environment() else { return Err(silent) };
    let mut endpoint = Some(endpoint);
    let service = podman::Service::start_for(&mut endpoint).await?;
    let Some(endpoint) = endpoint else { return Err(silent) };
    let names = containers_of(&endpoint).await;
    if let Some(service) = service {
        service.end().await;
    }
    let note = "no docker answers: the containers are podman's, for 'mirrord podman run'";
    Ok(found(names?, Some(note)))
}

fn found(names: Vec<String>, note: Option<&str>) -> Found {
    let row = |name| Row { kind: CONTAINER, name, namespace: None, containers: Vec::new() };
    let note = note.map(str::to_owned);
    Found { rows: names.into_iter().map(row).collect(), note, ..Found::default() }
}

async fn containers_of(endpoint: &Endpoint) -> Result<Vec<String>, Failure> {
    let engine = Engine::new(endpoint)?;
    Ok(match running(&engine).await {
        Err(error) => match engine.with_version_of(&error) {
            Some(engine) => running(&engine).await?,
            None => return Err(error.into()),
        },
        Ok(list) => list,
    })
}

async fn running(engine: &Engine) -> Result<Vec<String>, EngineError> {
    let options = ListContainersOptionsBuilder::default().build();
    let list = engine.api().list_containers(Some(options)).await;
    let list = list.map_err(|error| engine.explain("cannot list containers", error))?;
    let theirs = list.into_iter().filter(|container| {
        container.labels.as_ref().is_none_or(|labels| !labels.contains_key(SESSION_LABEL))
    });
    let mut names: Vec<String> = theirs
        .filter_map(|container| {
            container.names?.into_iter().find(|name| name.rfind('/') == Some(0))
        })
        .map(|name| name.trim_start_matches('/').to_owned())
        .collect();
    names.sort();
    Ok(names)
}

async fn workloads(
    args: &ListArgs,
    access: &Access,
    namespace: Option<&str>,
) -> Result<Found, Failure> {
    let cluster = match Cluster::connect(access).await {
        Ok(cluster) => cluster,
        Err(error @ ClusterError::NoKubeconfig { .. }) if args.only.is_none() => {
            let absent = Some(format!("no cluster is listed: {error}"));
            return Ok(Found { absent, ..Found::default() });
        }
        Err(error) => return Err(error.into()),
    };
    let namespace = namespace.unwrap_or(&cluster.namespace);
    let query = Query {
        namespace: (!args.all_namespaces).then_some(namespace),
        kind: match args.only {
            Some(Type::Cluster(kind)) => Some(kind),
            _ => None,
        },
        containers: args.output != Output::Name,
    };
    let listed = list::targets(&cluster, query).await;
    let nothing = listed.entries.is_empty();
    let lasting = |error: &ClusterError| error.is_forbidden() || error.is_unknown_type();
    let (soft, mut hard): (Vec<_>, Vec<_>) =
        listed.failed.into_iter().partition(|(_, error)| lasting(error));
    if nothing && let Some((_, error)) = hard.pop() {
        return Err(error.into());
    }
    let warnings = soft.into_iter().chain(hard).map(|(kind, error)| {
        if error.is_unknown_type() {
            return format!("the cluster has no {}.{}", kind.plural(), kind.group());
        }
        let failure = Failure::from(error);
        let cause = failure.causes.first().map(|cause| format!(": {cause}"));
        format!("{}{}", failure.sentence, cause.unwrap_or_default())
    });
    let rows = listed.entries.into_iter().map(Row::from).collect();
    Ok(Found { rows, warnings: warnings.collect(), ..Found::default() })
}

fn text(rows: &[Row], output: Output) -> serde_json::Result<String> {
    let text = match output {
        Output::Table => table(rows),
        Output::Json => serde_json::to_string_pretty(rows)? + "\n",
        Output::Name => rows.iter().map(|row| format!("{}/{}\n", row.kind, row.name)).collect(),
    };
    Ok(text)
}

fn table(rows: &[Row]) -> String {
    let head = ["TARGET".to_owned(), "NAMESPACE".to_owned(), "CONTAINERS".to_owned()];
    let lines = rows.iter().map(|row| {
        let namespace = row.namespace.clone().unwrap_or_default();
        [format!("{}/{}", row.kind, row.name), namespace, row.containers.join(", ")]
    });
    let lines: Vec<[String; 3]> = std::iter::once(head).chain(lines).collect();
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let shown = lines.iter().map(|[target, namespace, containers]| {
        let line = format!("{target:first$}  {namespace:second$}  {containers}");
        format!("{}\n", line.trim_end())
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &'static str, name: &str, namespace: Option<&str>, containers: &[&str]) -> Row {
        Row {
            kind,
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            containers: containers.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn the_table_is_as_wide_as_it_must_be() {
        let rows = [
            row("container", "db", None, &[]),
            row("deployment", "orders", Some("shop"), &[]),
            row("pod", "orders-1", Some("shop"), &["app", "proxy"]),
        ];
        insta::assert_snapshot!(table(&rows), @r"
        TARGET             NAMESPACE  CONTAINERS
        container/db
        deployment/orders  shop
        pod/orders-1       shop       app, proxy
        ");
    }

    #[test]
    fn json_leaves_out_what_is_not_there() {
        let json = serde_json::to_value([row("container", "db", None, &[])]).expect("json");
        assert_eq!(json, serde_json::json!([{"type": "container", "name": "db"}]));
    }

    #[test]
    fn types_have_short_names() {
        assert_eq!("deploy".parse(), Ok(Type::Cluster(Kind::Deployment)));
        assert_eq!("container".parse(), Ok(Type::Container));
        assert_eq!("deplyment".parse::<Type>(), Err("did you mean deployment?".to_owned()));
    }
}
