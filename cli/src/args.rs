//! The command line, as typed.

mod over;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use mirrord_protocol::control::SHARED_FOLDER;

use crate::cluster::settings::AgentMode;
use crate::doctor::DoctorArgs;
use crate::explain::Output;
use crate::list::ListArgs;
use crate::session::plane::PlaneArg;
use crate::sessions::{StatusArgs, StopArgs};
use crate::settings::ENVIRONMENT;
use crate::stand::UpArgs;

const EXAMPLES: &str = "\
Examples:
  mirrord -t deployment/orders docker run --rm -it -p 8080:80 orders:dev
      run orders:dev with the network, names, environment and a copy of the traffic of a pod of
      the cluster's deployment 'orders'
  mirrord -t deployment/orders -n shop --steal docker run --rm orders:dev
      take its traffic instead of copying it
  mirrord -t pod/orders-0/container/web --steal --port 3000:80 docker run --rm orders:dev
      the target listens on 80, the app on 3000
  mirrord -t container/orders docker run --rm orders:dev
      the same in place of a running container of this engine
  mirrord exec -t deployment/orders --steal -- node server.js
      the same for a process of this machine, without a container
  mirrord docker run --rm -it debian
      no target: the cluster's network and names alone

Words after 'docker' are docker's own; everything of 'docker run' works, and the exit code is its.";

/// Run a container on this machine in another one's place.
#[derive(Debug, Parser)]
#[command(name = "mirrord", version, about, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What stands before the command.
    #[command(flatten)]
    pub options: Options,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What mirrord can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one container in the target's place: docker run …
    #[command(disable_help_flag = true)]
    Docker {
        /// docker's own words.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
        words: Vec<OsString>,
    },
    /// docker's run, where docker itself has called this program: docker mirrord [OPTIONS] run …
    #[command(disable_help_flag = true, hide = true)]
    Run {
        /// What stands behind run.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
        words: Vec<OsString>,
    },
    /// The same with podman: podman run …
    #[command(disable_help_flag = true)]
    Podman {
        /// podman's own words.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
        words: Vec<OsString>,
    },
    /// Not possible yet: containerd has no API of Docker's
    #[command(disable_help_flag = true, hide = true)]
    Nerdctl {
        /// nerdctl's own words.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
        words: Vec<OsString>,
    },
    /// The same, with options behind: container [OPTIONS] -- docker run …
    Container {
        /// What stands before the dashes.
        #[command(flatten)]
        options: Box<Options>,
        /// docker and its own words.
        #[arg(last = true, required = true, value_name = "docker run …")]
        words: Vec<OsString>,
    },
    /// Run a process of this machine in the target's place: exec [OPTIONS] -- CMD …
    Exec {
        /// What stands before the command.
        #[command(flatten)]
        options: Box<Options>,
        /// The command and its own words.
        #[arg(trailing_var_arg = true, required = true, value_name = "CMD …")]
        words: Vec<OsString>,
    },
    /// Stand in the target's place for a container that somebody else starts, an editor's for
    /// example: up [OPTIONS] NAME, then docker run --network container:NAME …
    Up(UpArgs),
    /// End what up has brought up
    Down {
        /// The network's name.
        name: String,
    },
    /// List what can be a target, Docker containers included
    Ls(ListArgs),
    /// Tell which sessions of this machine go on, those in the background included
    Status(StatusArgs),
    /// End sessions: their apps are stopped as docker stop does, and nothing of them is left
    Stop(StopArgs),
    /// Tell what this machine and the cluster allow, and what a crash left
    Doctor(DoctorArgs),
    /// Check a configuration file: a verdict in JSON
    VerifyConfig {
        /// The file.
        file: PathBuf,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// The sidecar's end of the tunnel
    #[command(hide = true)]
    Proxy {
        /// The process that does it, which another one starts again when it is killed.
        #[arg(long)]
        worker: bool,
        /// Tries whether this container may redirect its network.
        #[arg(long, conflicts_with_all = ["worker", "pipe"])]
        check: bool,
        /// Hands standard input and output over to it, as the pipe to the target of this number.
        #[arg(long, value_name = "INDEX", conflicts_with = "worker")]
        pipe: Option<u16>,
        /// The target's container, as the agent knows it.
        #[arg(long, value_name = "ID", requires = "pipe")]
        container: Option<String>,
        /// They are the agent's own socket.
        #[arg(long, requires = "pipe")]
        direct: bool,
        /// Where the proxy's files are.
        #[arg(long, value_name = "FOLDER", default_value = SHARED_FOLDER)]
        folder: PathBuf,
    },
    /// The target's end of the tunnel
    #[command(hide = true)]
    Agent {
        /// Copies standard input to the running agent, and what it says to standard output.
        #[arg(long)]
        pipe: bool,
    },
    /// What compose calls for a service whose provider is mirrord
    #[command(hide = true, disable_help_flag = true)]
    Compose {
        /// Compose's own words.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
        words: Vec<OsString>,
    },
    /// The process that keeps a session
    #[command(hide = true)]
    Session,
}

/// Options that stand before `docker`.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Whose place the container takes: pod/NAME, deployment/NAME, … with or without
    /// /container/NAME behind, or container/NAME for a container of this engine; none: nobody's,
    /// for the cluster's network alone
    #[arg(short, long, value_name = "TYPE/NAME")]
    pub target: Option<String>,
    /// Which service of a compose project takes it: docker compose …
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// What is asked for, in a file: JSON, YAML or TOML; options stand above it
    /// [default: .mirrord/mirrord.json, .yaml, .yml or .toml]
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// The options of clusters.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Take the target's traffic
    #[arg(long, group = "incoming", help_heading = "Incoming")]
    pub steal: bool,
    /// Get a copy of the target's traffic (the default)
    #[arg(long, group = "incoming", help_heading = "Incoming")]
    pub mirror: bool,
    /// Leave the target's traffic alone
    #[arg(long, group = "incoming", help_heading = "Incoming")]
    pub no_incoming: bool,
    /// Only this port; by default every one that the app listens on
    #[arg(long = "port", value_name = "LOCAL[:REMOTE][/udp]", help_heading = "Incoming")]
    pub ports: Vec<String>,
    /// Never these ports of the target
    #[arg(long, value_name = "PORT,…", value_delimiter = ',', help_heading = "Incoming")]
    pub ignore_ports: Vec<String>,
    /// The app's connections leave from this machine
    #[arg(long, help_heading = "Outgoing")]
    pub no_outgoing: bool,
    /// The app's TCP connections leave from this machine
    #[arg(long, help_heading = "Outgoing")]
    pub no_tcp_outgoing: bool,
    /// The app's UDP datagrams leave from this machine
    #[arg(long, help_heading = "Outgoing")]
    pub no_udp_outgoing: bool,
    /// Names are resolved as on this machine
    #[arg(long, help_heading = "Outgoing")]
    pub no_remote_dns: bool,
    /// Only these variables of the target, with wildcards
    #[arg(short = 's', long, value_name = "NAME;…", help_heading = "Environment")]
    pub override_env_vars_include: Option<String>,
    /// None of these variables of the target, with wildcards
    #[arg(short = 'x', long, value_name = "NAME;…", help_heading = "Environment")]
    pub override_env_vars_exclude: Option<String>,
    /// None of the target's variables
    #[arg(long, help_heading = "Environment")]
    pub no_env: bool,
    /// Who redirects: the kernel, in a sidecar's network, or the preload library, where an engine
    /// grants no capability [default: auto, the kernel if it can]
    #[arg(long, value_enum, value_name = "WHO", help_heading = "Redirection")]
    pub plane: Option<PlaneArg>,
    /// Programs that the preload library leaves alone, by their names
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', help_heading = "Redirection")]
    pub skip_processes: Vec<String>,
    /// Whether it leaves compilers, linkers and the like alone [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", help_heading = "Redirection")]
    pub skip_build_tools: Option<bool>,
    /// Write down what the run depends on, in mirrord.lock
    #[arg(long, help_heading = "Reproducible")]
    pub lock: bool,
    /// Refuse to run where that is not as in mirrord.lock
    #[arg(long, conflicts_with = "lock", help_heading = "Reproducible")]
    pub locked: bool,
    /// Print the plan, where each flag goes and why, each call to the engine, and start nothing
    #[arg(long, help_heading = "Output")]
    pub explain: bool,
    /// The plan's form
    #[arg(short, long, value_enum, value_name = "FORM", requires = "explain")]
    #[arg(help_heading = "Output")]
    pub output: Option<Output>,
    /// How progress is shown, on standard error
    #[arg(long, value_enum, default_value_t, value_name = "HOW", help_heading = "Output")]
    pub progress: ProgressArg,
    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
    /// Say more: each step's time and the log; twice for more of it
    #[arg(short, long, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Colours on standard error
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", help_heading = "Output")]
    pub color: ColorArg,
}

/// Options about clusters and the agents in them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterOptions {
    /// The target's namespace; by default the context's
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    pub target_namespace: Option<String>,
    /// The context of the kubeconfig; by default the current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig; by default as kubectl finds it
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Accept any certificate of the API server
    #[arg(short = 'c', long)]
    pub accept_invalid_certificates: bool,
    /// Take the place of all ready pods of the workload, not of one
    #[arg(long)]
    pub all_replicas: bool,
    /// How an agent comes to its target; by default as a job, and where pod security refuses that
    /// as an ephemeral container
    #[arg(long, value_enum, value_name = "MODE")]
    pub agent_mode: Option<AgentMode>,
    /// The agents' namespace; by default the target's
    #[arg(short = 'a', long, value_name = "NAMESPACE")]
    pub agent_namespace: Option<String>,
    /// The agents' image, which the node must have; by default the target's own
    #[arg(short = 'i', long, value_name = "IMAGE")]
    pub agent_image: Option<String>,
}

/// `--progress`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressArg {
    /// A spinner on a terminal, else plain lines.
    #[default]
    Auto,
    /// Lines.
    Plain,
    /// A JSON value a line.
    Json,
    /// Nothing.
    Off,
}

/// `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

impl Cli {
    /// Reads the command line; its help names the environment variables as well.
    pub fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        let width = ENVIRONMENT.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let variables = ENVIRONMENT
            .iter()
            .map(|(name, what)| format!("  {name:width$}  {what}"))
            .collect::<Vec<_>>();
        let help = format!("{EXAMPLES}\n\nEnvironment:\n{}", variables.join("\n"));
        let matches = Self::command().after_help(help).try_get_matches_from(words)?;
        Self::from_arg_matches(&matches)
    }
}

/// Whether the words are a `docker run` front's, whose misuse has docker's exit code.
pub fn is_run_front(words: &[OsString]) -> bool {
    let fronts = ["docker", "podman", "nerdctl", "container", "run"];
    let others = ["exec", "ls", "status", "stop", "doctor", "verify-config", "completions"];
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    words
        .find(|word| fronts.contains(word) || others.contains(word))
        .is_some_and(|word| fronts.contains(&word))
}

/// A completion script.
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mirrord", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
