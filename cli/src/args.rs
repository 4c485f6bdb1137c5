//! The command line, as typed.

use std::ffi::OsString;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::settings::ENVIRONMENT;

const EXAMPLES: &str = "\
Examples:
  mirrord -t container/orders docker run --rm -it -p 8080:80 orders:dev
      run orders:dev with the network, names, environment and a copy of the traffic of the
      running container 'orders'
  mirrord -t container/orders --steal docker run --rm orders:dev
      take its traffic instead of copying it
  mirrord -t container/orders --steal --port 3000:80 docker run --rm orders:dev
      the target listens on 80, the app on 3000

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
    /// The same, with options behind: container [OPTIONS] -- docker run …
    Container {
        /// What stands before the dashes.
        #[command(flatten)]
        options: Options,
        /// docker and its own words.
        #[arg(last = true, required = true, value_name = "docker run …")]
        words: Vec<OsString>,
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
    },
    /// The target's end of the tunnel
    #[command(hide = true)]
    Agent,
    /// The process that keeps a session
    #[command(hide = true)]
    Session,
}

/// Options that stand before `docker`.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Whose place the container takes: container/NAME
    #[arg(short, long, value_name = "TYPE/NAME", env = "MIRRORD_TARGET")]
    pub target: Option<String>,
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
    words.iter().skip(1).any(|word| word == "docker" || word == "container")
}

/// Prints a completion script.
pub fn complete(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "mirrord", &mut std::io::stdout());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_well_made() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_word_after_docker_is_dockers() {
        let cli = parse("mirrord -t container/a --steal docker --context x run -t -v /a:/b --steal img -q -- --help")
            .expect("a good line");
        assert!(cli.options.steal && !cli.options.quiet);
        let Command::Docker { words } = cli.command else { panic!() };
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words.join(" "), "--context x run -t -v /a:/b --steal img -q -- --help");
    }

    #[test]
    fn docker_run_help_is_dockers() {
        let cli = parse("mirrord docker run --help").expect("no help of ours");
        let Command::Docker { words } = cli.command else { panic!() };
        assert_eq!(words, ["run", "--help"]);
    }

    #[test]
    fn the_peers_spelling_is_the_same_thing() {
        let cli =
            parse("mirrord container -t container/a --steal -- docker run --rm img").expect("good");
        let Command::Container { options, words } = cli.command else { panic!() };
        assert!(options.steal);
        assert_eq!(words, ["docker", "run", "--rm", "img"]);
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(parse("mirrord --steal --mirror docker run img").is_err());
        assert!(parse("mirrord -q -v docker run img").is_err());
    }
}
