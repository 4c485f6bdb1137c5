//! What is asked for of the cluster.

use std::env;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::args::ClusterOptions;
use crate::cluster::settings::{Access, AgentMode, AgentSettings, ClusterSettings};
use crate::config::{Config, Lookup, Node};
use crate::failure::Failure;

/// What the options, the environment and the configuration file say.
pub fn settings(
    options: &ClusterOptions,
    config: &Config,
    variable: Lookup<'_>,
) -> Result<ClusterSettings, Failure> {
    let text = |option: &Option<String>, key: &str| {
        option.clone().or_else(|| config.text(key).map(str::to_owned)).filter(|it| !it.is_empty())
    };
    let flag = |option: bool, key: &str| option || config.flag(key) == Some(true);
    Ok(ClusterSettings {
        access: Access {
            kubeconfig: kubeconfig(options, config, variable)?,
            context: text(&options.context, "kube_context"),
            accept_invalid_certificates: flag(
                options.accept_invalid_certificates,
                "accept_invalid_certificates",
            ),
        },
        namespace: namespace(
            "--target-namespace",
            text(&options.target_namespace, "target.namespace"),
        )?,
        all_replicas: flag(options.all_replicas, "target.all_replicas"),
        agent: AgentSettings {
            mode: options.agent_mode.or_else(|| mode(config)),
            namespace: namespace(
                "--agent-namespace",
                text(&options.agent_namespace, "agent.namespace"),
            )?,
            image: options
                .agent_image
                .clone()
                .map_or_else(|| image(config), |image| Ok(Some(image)))?,
            ..agent(config)
        },
    })
}

/// A namespace's name: a label of DNS (RFC 1123), since it becomes a part of the API's paths.
fn namespace(option: &str, name: Option<String>) -> Result<Option<String>, Failure> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = |name: &String| {
        (1..=63).contains(&name.len())
            && name.starts_with(plain)
            && name.ends_with(plain)
            && name.chars().all(|c| plain(c) || c == '-')
    };
    match name {
        Some(name) if !good(&name) => {
            Err(Failure::new(format!("{name:?} cannot be a namespace ({option})"))
                .hint("a namespace has up to 63 lower case letters, digits and dashes"))
        }
        name => Ok(name),
    }
}

/// What the file alone says of the agents.
fn agent(config: &Config) -> AgentSettings {
    let default = AgentSettings::default();
    let seconds = |key: &str, otherwise: u64| config.count(key).unwrap_or(otherwise);
    AgentSettings {
        labels: config.map("agent.labels"),
        annotations: config.map("agent.annotations"),
        tolerations: config.get("agent.tolerations").map(values),
        resources: config.get("agent.resources").map(Node::value),
        node_selector: config.map("agent.node_selector"),
        service_account: config.text("agent.service_account").map(str::to_owned),
        exclude_probes: config.flag("agent.exclude_probes") == Some(true),
        startup_timeout: seconds("agent.startup_timeout", default.startup_timeout),
        communication_timeout: seconds(
            "agent.communication_timeout",
            default.communication_timeout,
        ),
        ttl: seconds("agent.ttl", default.ttl),
        ..default
    }
}

fn values(list: &Node) -> Vec<Value> {
    list.items().iter().map(Node::value).collect()
}

fn mode(config: &Config) -> Option<AgentMode> {
    match (config.text("agent.mode"), config.flag("agent.ephemeral")) {
        (Some("ephemeral"), _) | (None, Some(true)) => Some(AgentMode::Ephemeral),
        (Some(_), _) | (None, Some(false)) => Some(AgentMode::Job),
        (None, None) => None,
    }
}

fn image(config: &Config) -> Result<Option<String>, Failure> {
    let Some(image) = config.get("agent.image") else {
        return Ok(None);
    };
    let part = |key: &str| image.get(key).and_then(Node::text);
    match (image.text(), part("registry"), part("tag")) {
        (Some(image), ..) | (None, Some(image), None) => Ok(Some(image.to_owned())),
        (None, Some(registry), Some(tag)) => Ok(Some(format!("{registry}:{tag}"))),
        (None, None, None) => Ok(None),
        (None, None, Some(_)) => {
            let message = "there is no agent.image.registry that it is a tag of".to_owned();
            Err(config.wrong("agent.image.tag", message, None).into())
        }
    }
}

/// The kubeconfigs, by paths that mean the same in another working folder.
fn kubeconfig(
    options: &ClusterOptions,
    config: &Config,
    variable: Lookup<'_>,
) -> Result<Option<String>, Failure> {
    if let Some(path) = &options.kubeconfig {
        return joined([path.clone()]).map(Some);
    }
    if let Some(list) = variable("KUBECONFIG") {
        let paths = env::split_paths(&list).filter(|path| !path.as_os_str().is_empty());
        return joined(paths).map(|list| Some(list).filter(|list| !list.is_empty()));
    }
    let path = config.text("kubeconfig").filter(|path| !path.is_empty());
    path.map(|path| joined([at_home(path, variable)])).transpose()
}

fn at_home(path: &str, variable: Lookup<'_>) -> PathBuf {
    match (path.strip_prefix("~/"), variable("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

fn joined(paths: impl IntoIterator<Item = PathBuf>) -> Result<String, Failure> {
    let cannot = |error: &dyn std::error::Error| {
        Failure::caused_by("cannot use the path of the kubeconfig", error)
    };
    let absolute: Vec<PathBuf> = paths
        .into_iter()
        .map(std::path::absolute)
        .collect::<Result<_, _>>()
        .map_err(|error| cannot(&error))?;
    let list = env::join_paths(absolute).map_err(|error| cannot(&error))?;
    list.into_string().map_err(|_| Failure::new("the path of the kubeconfig is not UTF-8"))
}
