//! What the user asked for, validated and complete.

mod cluster;
mod incoming;
mod layer;

use std::env;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use mirrord_protocol::control::Incoming;

use crate::args::{ColorArg, Options, ProgressArg};
use crate::cluster::settings::ClusterSettings;
use crate::config::{self, Config, Lookup};
use crate::env_rules::EnvRules;
use crate::failure::Failure;
use crate::lock::Locking;
use crate::session::plane::{LayerWishes, Plane, PlaneArg};
use crate::target::{TargetName, TargetNameError};

/// The target of a file that asks for none.
const TARGETLESS: &str = "targetless";
/// The longest XDG_RUNTIME_DIR: `mirrord/.01234567`, as a socket is called at first, has to fit
/// behind it into the 108 bytes of `sun_path`, and so has `mirrord/01234567.sock`.
const LONGEST: usize = 107 - "/mirrord/01234567.sock".len();

/// The environment variables that are read, and what for; this file reads them, and
/// `engine/endpoint.rs` those of docker. A template of a configuration file may name any other.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("MIRRORD_TARGET", "the target, as -t"),
    ("MIRRORD_CONFIG_FILE", "the configuration file, as -f"),
    ("MIRRORD_LOG", "tracing filter of the proxy's and the agent's log; shown with -v"),
    ("NO_COLOR", "no colours, whatever its value"),
    ("KUBECONFIG", "the kubeconfigs, as kubectl"),
    ("HOME", "the folder of ~/ in a kubeconfig's path, and of .kube/config and .docker"),
    ("DOCKER_HOST", "the engine, as docker"),
    ("DOCKER_CONTEXT", "the engine's context, as docker"),
    ("DOCKER_CONFIG", "docker's configuration folder, as docker"),
    (
        "XDG_RUNTIME_DIR",
        "where sessions can be asked; else /run/user/UID, else /tmp/mirrord-user-UID",
    ),
    ("COMPOSE_PROVIDER_MESSAGES", "what compose understands, as it says to a provider"),
    ("DOCKER_TLS_VERIFY", "TLS to the engine, as docker"),
    ("DOCKER_TLS", "TLS to an engine that nobody vouches for, as docker"),
    ("DOCKER_CERT_PATH", "the folder of the certificates for that, as docker"),
];

/// What the user asked for.
#[derive(Debug)]
pub struct Settings {
    /// Whose place is taken; nobody's, for the cluster's network alone.
    pub target: Option<TargetName>,
    /// What is asked for of the cluster.
    pub cluster: ClusterSettings,
    /// Who redirects.
    pub plane: PlaneArg,
    /// What is asked for of the preload library.
    pub layer: LayerWishes,
    /// Whether the app has the target's host name.
    pub hostname: bool,
    /// What happens to the target's traffic.
    pub incoming: Incoming,
    /// Whether the app's TCP connections leave from the target.
    pub outgoing_tcp: bool,
    /// Whether the app's UDP datagrams leave from the target.
    pub outgoing_udp: bool,
    /// Whether names are resolved as the target does.
    pub remote_dns: bool,
    /// Which of the target's variables the app gets.
    pub env: EnvRules,
    /// What is done with mirrord.lock.
    pub locking: Locking,
    /// `tracing` filter of the proxy and the agent.
    pub log: String,
    /// What the user should know before anything is started.
    pub warnings: Vec<String>,
}

/// How we talk to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    /// The form.
    pub form: Form,
    /// How much: 0 is a word when all is well.
    pub verbose: u8,
    /// Errors alone.
    pub quiet: bool,
    /// Whether colours may be used.
    pub color: bool,
}

/// The form of what is said on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A spinner, then lines.
    Terminal,
    /// Lines.
    Plain,
    /// JSON values.
    Json,
}

impl Voice {
    /// What the options, the environment and the terminal say.
    pub fn of(options: &Options) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            form: match options.progress {
                ProgressArg::Auto if terminal => Form::Terminal,
                ProgressArg::Json => Form::Json,
                ProgressArg::Auto | ProgressArg::Plain | ProgressArg::Off => Form::Plain,
            },
            verbose: options.verbose,
            quiet: options.quiet || options.progress == ProgressArg::Off,
            color: match options.color {
                ColorArg::Auto => terminal && !no_color,
                ColorArg::Always => true,
                ColorArg::Never => false,
            },
        }
    }
}

impl Settings {
    /// Whether the target is in a cluster.
    pub fn is_remote(&self) -> bool {
        !matches!(self.target, Some(TargetName::Container(_)))
    }

    /// The target, if it is a container of an engine.
    pub fn container(&self) -> Option<&str> {
        match &self.target {
            Some(TargetName::Container(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether the preload library is in the app's container.
    pub fn loads_layer(&self) -> bool {
        Plane::of_container(self.plane).loads_layer(&self.layer)
    }

    /// What the options, the environment and the configuration file say, in this order.
    pub fn of(options: &Options) -> Result<Self, Failure> {
        let mut options = options.clone();
        let target = options.target.filter(|target| !target.is_empty());
        options.target = target.or_else(|| variable("MIRRORD_TARGET"));
        let file = options.config_file.clone().or_else(|| {
            let file = env::var_os("MIRRORD_CONFIG_FILE").filter(|file| !file.is_empty());
            file.map(PathBuf::from)
        });
        let config = Config::find(file.as_deref(), Path::new(""), &variable)?;
        Self::with(&options, &config, &variable)
    }

    /// What options and a configuration file say of a target, and all three of the rest.
    pub fn with(options: &Options, config: &Config, variable: Lookup<'_>) -> Result<Self, Failure> {
        let network = config.flag("feature.network") != Some(false);
        let outgoing = network
            && !options.no_outgoing
            && config.flag("feature.network.outgoing") != Some(false);
        let wanted = |key: &str| config.flag(key) != Some(false);
        Ok(Self {
            target: target(options, config)?,
            cluster: cluster::settings(&options.cluster, config, variable)?,
            plane: options.plane.unwrap_or_default(),
            layer: layer::wishes(options, config)?,
            hostname: wanted("feature.hostname"),
            incoming: incoming::settings(options, config)?,
            outgoing_tcp: outgoing
                && !options.no_tcp_outgoing
                && wanted("feature.network.outgoing.tcp"),
            outgoing_udp: outgoing
                && !options.no_udp_outgoing
                && wanted("feature.network.outgoing.udp"),
            remote_dns: network
                && !options.no_remote_dns
                && wanted("feature.network.dns")
                && wanted("feature.network.dns.enabled"),
            env: env_rules(options, config),
            locking: Locking::of(options),
            log: log(options.verbose, config, variable),
            warnings: config.warning().into_iter().collect(),
        })
    }
}

fn log(verbose: u8, config: &Config, variable: Lookup<'_>) -> String {
    let default = || match verbose {
        0 => "warn".to_owned(),
        1 => "info".to_owned(),
        _ => "debug".to_owned(),
    };
    variable("MIRRORD_LOG")
        .or_else(|| config.text("agent.log_level").map(str::to_owned))
        .unwrap_or_else(default)
}

/// A variable of the environment, unless it is empty or not UTF-8.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where this user's sessions can be asked: nobody else looks into it.
pub fn runtime_folder() -> PathBuf {
    let user = nix::unistd::geteuid().as_raw();
    runtime_folder_in(env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), user)
}

/// In the given folder if a socket's path there fits into `sun_path`, else in the usual one.
fn runtime_folder_in(given: Option<PathBuf>, user: u32) -> PathBuf {
    let fits = |folder: &PathBuf| folder.is_absolute() && folder.as_os_str().len() <= LONGEST;
    let usual = PathBuf::from(format!("/run/user/{user}"));
    match given.filter(fits).or(Some(usual).filter(|it| it.is_dir())) {
        Some(folder) => folder.join("mirrord"),
        None => PathBuf::from(format!("/tmp/mirrord-user-{user}")),
    }
}

fn target(options: &Options, config: &Config) -> Result<Option<TargetName>, Failure> {
    if let Some(text) = options.target.as_deref().filter(|text| !text.is_empty()) {
        return named(text).map_err(Failure::from);
    }
    let Some((key, text)) = target_of_file(config) else {
        return Ok(None);
    };
    named(&text).map_err(|error| {
        let failure = Failure::from(error);
        config.wrong(key, failure.sentence, failure.hint).into()
    })
}

fn named(text: &str) -> Result<Option<TargetName>, TargetNameError> {
    if text == TARGETLESS { Ok(None) } else { text.parse().map(Some) }
}

fn target_of_file(config: &Config) -> Option<(&'static str, String)> {
    if let Some(text) = config.text("target") {
        return Some(("target", text.to_owned()));
    }
    let path = config.get("target.path")?;
    let text = path.text().map(str::to_owned).or_else(|| config::workload(path));
    Some(("target.path", text?))
}

fn env_rules(options: &Options, config: &Config) -> EnvRules {
    let list = |option: &Option<String>, key: &str| option.clone().or_else(|| config.words(key));
    let include = list(&options.override_env_vars_include, "feature.env.include");
    let exclude = list(&options.override_env_vars_exclude, "feature.env.exclude");
    let asked =
        options.override_env_vars_include.is_some() || options.override_env_vars_exclude.is_some();
    let off = options.no_env || (!asked && config.flag("feature.env") == Some(false));
    let overrides = config.map("feature.env.override");
    EnvRules::new(off, include.as_deref(), exclude.as_deref()).with_overrides(overrides)
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
