//! What the user asked for, validated and complete.

use std::env;
use std::io::IsTerminal;

use mirrord_protocol::control::{Incoming, IncomingMode, PortMapping, Protocol};

use crate::args::{ColorArg, Options, ProgressArg};
use crate::env_rules::EnvRules;
use crate::failure::Failure;
use crate::target::TargetName;

/// The environment variables that are read, and what for; this file reads them (or clap, for the
/// options), and `engine/endpoint.rs` those of docker.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("MIRRORD_TARGET", "the target, as -t"),
    ("MIRRORD_LOG", "tracing filter of the proxy's and the agent's log; shown with -v"),
    ("NO_COLOR", "no colours, whatever its value"),
    ("DOCKER_HOST", "the engine, as docker"),
    ("DOCKER_CONTEXT", "the engine's context, as docker"),
    ("DOCKER_CONFIG", "docker's configuration folder, as docker"),
    ("DOCKER_TLS_VERIFY", "TLS to the engine, as docker; not supported yet"),
];

/// What the user asked for.
#[derive(Debug)]
pub struct Settings {
    /// Whose place is taken.
    pub target: TargetName,
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
    /// `tracing` filter of the proxy and the agent.
    pub log: String,
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

/// Why an option cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// No target.
    #[error("no target is given")]
    NoTarget,
    /// `--port`.
    #[error("invalid value {0:?} for --port: it is not LOCAL[:REMOTE][/udp]")]
    Port(String),
    /// `--ignore-ports`.
    #[error("invalid value {0:?} for --ignore-ports: it is not a port or a range of ports")]
    IgnorePorts(String),
    /// The same local port twice.
    #[error("--port names the local port {0} twice")]
    PortTwice(u16),
    /// The same remote port twice.
    #[error("--port names the remote port {0} twice")]
    RemotePortTwice(u16),
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            SettingsError::NoTarget => failure.hint(
                "name a running container: -t container/NAME, or MIRRORD_TARGET=container/NAME",
            ),
            SettingsError::Port(_) => failure.hint("for example --port 3000:80"),
            SettingsError::IgnorePorts(_) => {
                failure.hint("for example --ignore-ports 9090,9100-9109")
            }
            SettingsError::PortTwice(_) | SettingsError::RemotePortTwice(_) => {
                failure.hint("one local port stands for one remote port")
            }
        }
    }
}

impl Settings {
    /// Checks the options.
    pub fn of(options: &Options) -> Result<Self, Failure> {
        let target = options.target.as_deref().filter(|target| !target.is_empty());
        let target = target.ok_or(SettingsError::NoTarget)?.parse()?;
        Ok(Self {
            target,
            incoming: incoming(options)?,
            outgoing_tcp: !options.no_outgoing && !options.no_tcp_outgoing,
            outgoing_udp: !options.no_outgoing && !options.no_udp_outgoing,
            remote_dns: !options.no_remote_dns,
            env: EnvRules::new(
                options.no_env,
                options.override_env_vars_include.as_deref(),
                options.override_env_vars_exclude.as_deref(),
            ),
            log: log(options.verbose),
        })
    }
}

fn log(verbose: u8) -> String {
    let default = || match verbose {
        0 => "warn".to_owned(),
        1 => "info".to_owned(),
        _ => "debug".to_owned(),
    };
    env::var("MIRRORD_LOG").ok().filter(|filter| !filter.is_empty()).unwrap_or_else(default)
}

fn incoming(options: &Options) -> Result<Incoming, SettingsError> {
    let mode = match (options.steal, options.no_incoming) {
        (true, _) => IncomingMode::Steal,
        (_, true) => IncomingMode::Off,
        _ => IncomingMode::Mirror,
    };
    let ports: Vec<PortMapping> =
        options.ports.iter().map(|port| port_mapping(port)).collect::<Result<_, _>>()?;
    for (at, port) in ports.iter().enumerate() {
        let mut before = ports[..at].iter().filter(|other| other.protocol == port.protocol);
        if before.clone().any(|other| other.local == port.local) {
            return Err(SettingsError::PortTwice(port.local));
        }
        if before.any(|other| other.remote == port.remote) {
            return Err(SettingsError::RemotePortTwice(port.remote));
        }
    }
    let mut ignore_ports = Vec::new();
    for text in options.ignore_ports.iter().filter(|text| !text.is_empty()) {
        let (first, last) =
            port_range(text).ok_or_else(|| SettingsError::IgnorePorts(text.clone()))?;
        ignore_ports.extend(first..=last);
    }
    Ok(Incoming { mode, ports, ignore_ports })
}

fn port_mapping(text: &str) -> Result<PortMapping, SettingsError> {
    let invalid = || SettingsError::Port(text.to_owned());
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some(_) => return Err(invalid()),
    };
    let (local, remote) = ports.split_once(':').unwrap_or((ports, ports));
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or_else(invalid);
    Ok(PortMapping { protocol, local: port(local)?, remote: port(remote)? })
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(ports: &[&str], ignored: &[&str]) -> Options {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Options {
            target: Some("container/a".to_owned()),
            ports: owned(ports),
            ignore_ports: owned(ignored),
            ..Options::default()
        }
    }

    #[test]
    fn ports_are_local_then_remote() {
        let settings = Settings::of(&options(&["3000:80", "53/udp", "8080/tcp"], &["9", "20-22"]));
        let incoming = settings.expect("good options").incoming;
        let shape: Vec<_> =
            incoming.ports.iter().map(|port| (port.local, port.remote, port.protocol)).collect();
        assert_eq!(
            shape,
            [(3000, 80, Protocol::Tcp), (53, 53, Protocol::Udp), (8080, 8080, Protocol::Tcp)]
        );
        assert_eq!(incoming.ignore_ports, [9, 20, 21, 22]);
        assert_eq!(incoming.mode, IncomingMode::Mirror);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for bad in ["", "x", "80:", "80:x", "80/sctp", "0", "70000"] {
            let failure = Settings::of(&options(&[bad], &[])).expect_err(bad);
            assert!(failure.sentence.contains("--port"), "{bad}: {failure}");
        }
        let failure = Settings::of(&options(&["80", "80:81"], &[])).expect_err("twice");
        assert_eq!(failure.sentence, "--port names the local port 80 twice");
        let failure = Settings::of(&options(&["3000:80", "3001:80/tcp"], &[])).expect_err("twice");
        assert_eq!(failure.sentence, "--port names the remote port 80 twice");
        assert!(Settings::of(&options(&["3000:80", "3000:80/udp"], &[])).is_ok());
        let failure = Settings::of(&options(&[], &["9-3"])).expect_err("a range backwards");
        assert!(failure.sentence.contains("--ignore-ports"));
    }

    #[test]
    fn no_target_says_how_to_name_one() {
        let failure = Settings::of(&Options::default()).expect_err("no target");
        assert!(failure.hint.expect("a hint").contains("-t container/NAME"));
    }
}
