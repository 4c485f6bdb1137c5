//! The settings, each with what is seen of it.

use anyhow::Result;
use mirrord_tests::scene::Scene;
use mirrord_tests::setting::Given;

use crate::{host_name, leaves, log, name, ports, tools, traffic, variables, whose_variable};

/// What is seen of a session with a setting; `TARGET` in a setting stands for the target.
pub type Observe = fn(&Scene<'_>, &Given) -> Result<String>;

/// One setting: its key, the file that has it, the words and the variable that say the same, and
/// what is then seen that is not seen without it.
pub struct Row {
    pub key: &'static str,
    pub file: &'static str,
    pub ways: &'static [Way],
    pub observe: Observe,
    pub seen: &'static str,
}

/// Another way to say what a file says.
pub enum Way {
    Options(&'static str),
    Docker(&'static str),
    Variable(&'static str, &'static str),
}
use self::Way::{Docker, Options, Variable};

const fn row(
    key: &'static str,
    file: &'static str,
    ways: &'static [Way],
    observe: Observe,
    seen: &'static str,
) -> Row {
    Row { key, file, ways, observe, seen }
}

pub const ENVIRONMENT: &[Row] = &[
    row(
        "target",
        r#"{"target": "TARGET"}"#,
        &[Options("-t TARGET"), Variable("MIRRORD_TARGET", "TARGET")],
        whose_variable,
        "there",
    ),
    row("target.path", r#"{"target": {"path": "TARGET"}}"#, &[], whose_variable, "there"),
    row("feature.env", r#"{"feature": {"env": false}}"#, &[Options("--no-env")], variables, "- -"),
    row(
        "feature.env.include",
        r#"{"feature": {"env": {"include": ["OTH*"]}}}"#,
        &[Options("-s OTH*")],
        variables,
        "- too",
    ),
    row(
        "feature.env.exclude",
        r#"{"feature": {"env": {"exclude": "OTH*"}}}"#,
        &[Options("-x OTH*")],
        variables,
        "there -",
    ),
    row(
        "feature.env.override",
        r#"{"feature": {"env": {"override": {"WHO": "mine"}}}}"#,
        &[Docker("-e WHO=mine")],
        variables,
        "mine too",
    ),
    row("feature.hostname", r#"{"feature": {"hostname": false}}"#, &[], host_name, "another"),
    row(
        "agent.log_level",
        r#"{"agent": {"log_level": "error"}}"#,
        &[Variable("MIRRORD_LOG", "error")],
        log,
        "without INFO",
    ),
];

pub const INCOMING: &[Row] = &[
    row(
        "feature.network.incoming",
        r#"{"feature": {"network": {"incoming": "steal"}}}"#,
        &[Options("--steal")],
        traffic,
        "answered by app, which heard it",
    ),
    row(
        "feature.network.incoming",
        r#"{"feature": {"network": {"incoming": false}}}"#,
        &[Options("--no-incoming")],
        traffic,
        "answered by original",
    ),
    row(
        "feature.network.incoming.mode",
        r#"{"feature": {"network": {"incoming": {"mode": "off"}}}}"#,
        &[Options("--no-incoming")],
        traffic,
        "answered by original",
    ),
    row(
        "feature.network.incoming.ports",
        r#"{"feature": {"network": {"incoming": {"mode": "steal", "ports": [81]}}}}"#,
        &[Options("--steal --port 81")],
        ports,
        "80 original, 81 app81",
    ),
    row(
        "feature.network.incoming.ignore_ports",
        r#"{"feature": {"network": {"incoming": {"mode": "steal", "ignore_ports": [81]}}}}"#,
        &[Options("--steal --ignore-ports 81")],
        ports,
        "80 app80, 81 original",
    ),
    row(
        "feature.network.incoming.port_mapping",
        r#"{"feature": {"network": {"incoming": {"mode": "steal", "port_mapping": [[8080, 80]]}}}}"#,
        &[Options("--steal --port 8080:80")],
        ports,
        "80 app8080, 81 original",
    ),
];

pub const OUTGOING: &[Row] = &[
    row(
        "feature.network",
        r#"{"feature": {"network": false}}"#,
        &[Options("--no-incoming --no-outgoing --no-remote-dns")],
        leaves,
        "neither",
    ),
    row(
        "feature.network.outgoing",
        r#"{"feature": {"network": {"outgoing": false}}}"#,
        &[Options("--no-outgoing")],
        leaves,
        "neither",
    ),
    row(
        "feature.network.outgoing.tcp",
        r#"{"feature": {"network": {"outgoing": {"tcp": false}}}}"#,
        &[Options("--no-tcp-outgoing")],
        leaves,
        "UDP",
    ),
    row(
        "feature.network.outgoing.udp",
        r#"{"feature": {"network": {"outgoing": {"udp": false}}}}"#,
        &[Options("--no-udp-outgoing")],
        leaves,
        "TCP",
    ),
    row(
        "feature.network.dns",
        r#"{"feature": {"network": {"dns": false}}}"#,
        &[Options("--no-remote-dns")],
        name,
        "unknown",
    ),
    row(
        "feature.network.dns.enabled",
        r#"{"feature": {"network": {"dns": {"enabled": false}}}}"#,
        &[Options("--no-remote-dns")],
        name,
        "unknown",
    ),
];

pub const LAYER: &[Row] = &[
    row(
        "skip_processes",
        r#"{"skip_processes": "a-tool"}"#,
        &[Options("--skip-processes a-tool")],
        tools,
        "left alone: gcc a-tool",
    ),
    row(
        "skip_build_tools",
        r#"{"skip_build_tools": false}"#,
        &[Options("--skip-build-tools=false")],
        tools,
        "left alone:",
    ),
    row(
        "skip_extra_build_tools",
        r#"{"skip_extra_build_tools": ["a-tool"]}"#,
        &[],
        tools,
        "left alone: gcc a-tool",
    ),
];

/// Keys whose effect another test sees: the file, and the test that has the key in it.
pub const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "feature.network.incoming.listen_ports",
        include_str!("../layer/ports.rs"),
        "a_listen_port_is_the_one_that_the_kernel_sees",
    ),
    (
        "feature.network.outgoing.unix_streams",
        include_str!("../layer/unix.rs"),
        "a_process_gets_to_the_targets_unix_sockets",
    ),
    (
        "agent.exclude_probes",
        include_str!("../cluster/incoming.rs"),
        "a_steal_answers_the_kubelets_probes_unless_they_are_left_out",
    ),
];

/// Keys that only hold others, and one that is for editors.
pub const HOLDERS: [&str; 3] = ["$schema", "feature", "agent"];
