use std::path::Path;

use mirrord_protocol::control::IncomingMode;

use super::*;

#[test]
fn a_runtime_folder_that_no_socket_fits_into_is_not_used() {
    let folder = |length: usize| PathBuf::from(format!("/{}", "x".repeat(length - 1)));
    let chosen = |length: usize| runtime_folder_in(Some(folder(length)), u32::MAX);
    assert_eq!(chosen(LONGEST), folder(LONGEST).join("mirrord"));
    assert!(chosen(LONGEST).join("01234567.sock").as_os_str().len() < 108);
    assert_eq!(chosen(LONGEST + 1), PathBuf::from(format!("/tmp/mirrord-user-{}", u32::MAX)));
    assert_eq!(runtime_folder_in(Some("run".into()), u32::MAX), chosen(LONGEST + 1));
}
use crate::args::ClusterOptions;
use crate::cluster::settings::AgentMode;

fn file(text: &str) -> Config {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mirrord.json");
    std::fs::write(&path, text).expect("written");
    Config::read(&path, &|_| None).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn settings(options: &Options, text: &str) -> Settings {
    Settings::with(options, &file(text), &|_| None)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn of_file(text: &str) -> Settings {
    settings(&Options::default(), text)
}

fn failure(text: &str) -> Failure {
    Settings::with(&Options::default(), &file(text), &|_| None).expect_err(text)
}

#[test]
fn no_target_is_nobodys_place() {
    for text in ["", "{}", r#"{"target": "targetless"}"#, r#"{"target": {"path": "targetless"}}"#] {
        assert_eq!(of_file(text).target, None);
    }
    let empty = Options { target: Some(String::new()), ..Options::default() };
    let target = settings(&empty, r#"{"target": "pod/a"}"#).target;
    assert_eq!(target.expect("the file's").to_string(), "pod/a");
}

#[test]
fn a_target_has_several_forms() {
    for (text, expected) in [
        (r#""deployment/a""#, "deployment/a"),
        (r#"{"path": "pod/a/container/b"}"#, "pod/a/container/b"),
        (r#"{"path": {"deployment": "a"}}"#, "deployment/a"),
        (r#"{"path": {"container": "b", "cron_job": "a"}}"#, "cronjob/a/container/b"),
    ] {
        let target = of_file(&format!("{{\"target\": {text}}}")).target.expect(text);
        assert_eq!(target.to_string(), expected);
    }
}

#[test]
fn a_target_of_a_file_that_cannot_be_is_named_with_its_place() {
    let failure = failure("{\n \"target\": {\"path\": \"orders\"}}");
    let expected = "mirrord.json:2:21: target.path: the target \"orders\" is not TYPE/NAME";
    assert!(failure.sentence.ends_with(expected), "{failure}");
    assert!(failure.hint.expect("a hint").contains("deployment/orders"));
}

#[test]
fn options_stand_above_the_file() {
    let text = r#"{
        "target": {"path": "pod/file", "namespace": "file", "all_replicas": false},
        "kube_context": "file", "kubeconfig": "/file", "accept_invalid_certificates": false,
        "agent": {"namespace": "file", "image": "file", "mode": "job"},
        "feature": {"network": {"incoming": {"mode": "steal", "ports": [1], "ignore_ports": [2]}},
                    "env": {"include": "FILE", "exclude": ["FILE"]}}
    }"#;
    let word = |text: &str| Some(text.to_owned());
    let options = Options {
        target: word("pod/option"),
        cluster: ClusterOptions {
            target_namespace: word("option"),
            context: word("option"),
            kubeconfig: Some("/option".into()),
            accept_invalid_certificates: true,
            all_replicas: true,
            agent_mode: Some(AgentMode::Ephemeral),
            agent_namespace: word("option"),
            agent_image: word("option"),
        },
        mirror: true,
        ports: vec!["3".to_owned()],
        ignore_ports: vec!["4".to_owned()],
        override_env_vars_include: word("OPTION"),
        override_env_vars_exclude: word("OPTION"),
        ..Options::default()
    };
    let both = settings(&options, text);
    let alone = settings(&options, "{}");
    assert_eq!(both.target, alone.target);
    assert_eq!(both.cluster, alone.cluster);
    assert_eq!(both.env, alone.env);
    assert_eq!(format!("{:?}", both.incoming), format!("{:?}", alone.incoming));
    let file = of_file(text);
    assert_eq!(file.target.expect("a target").to_string(), "pod/file");
    assert_eq!(file.cluster.namespace.as_deref(), Some("file"));
    assert_eq!(file.cluster.access.context.as_deref(), Some("file"));
    assert_eq!(file.cluster.agent.namespace.as_deref(), Some("file"));
    assert_eq!(file.cluster.agent.image.as_deref(), Some("file"));
    assert_eq!(file.cluster.agent.mode, Some(AgentMode::Job));
    assert_eq!(file.incoming.mode, IncomingMode::Steal);
    assert_eq!((file.incoming.ports[0].local, file.incoming.ignore_ports[0]), (1, 2));
    assert_eq!(file.env, EnvRules::new(false, Some("FILE"), Some("FILE")));
}

#[test]
fn options_that_switch_off_stand_above_the_file() {
    let on = r#"{"feature": {"env": true, "network": {"outgoing": true, "dns": true}}}"#;
    let options = Options {
        no_outgoing: true,
        no_remote_dns: true,
        no_env: true,
        no_incoming: true,
        ..Options::default()
    };
    let settings = settings(&options, on);
    assert!(!settings.outgoing_tcp && !settings.outgoing_udp && !settings.remote_dns);
    assert!(!settings.env.wanted());
    assert_eq!(settings.incoming.mode, IncomingMode::Off);
}

#[test]
fn the_network_of_a_file_has_short_and_long_forms() {
    for (text, expected) in [
        ("true", (IncomingMode::Mirror, true, true, true)),
        ("false", (IncomingMode::Off, false, false, false)),
        (r#"{"incoming": false}"#, (IncomingMode::Off, true, true, true)),
        (r#"{"incoming": true}"#, (IncomingMode::Mirror, true, true, true)),
        (r#"{"incoming": "steal"}"#, (IncomingMode::Steal, true, true, true)),
        (r#"{"incoming": {"mode": "off"}}"#, (IncomingMode::Off, true, true, true)),
        (r#"{"incoming": {}}"#, (IncomingMode::Mirror, true, true, true)),
        (r#"{"outgoing": false}"#, (IncomingMode::Mirror, false, false, true)),
        (r#"{"outgoing": {"udp": false}}"#, (IncomingMode::Mirror, true, false, true)),
        (r#"{"outgoing": {"tcp": false}}"#, (IncomingMode::Mirror, false, true, true)),
        (r#"{"dns": false}"#, (IncomingMode::Mirror, true, true, false)),
        (r#"{"dns": {"enabled": false}}"#, (IncomingMode::Mirror, true, true, false)),
    ] {
        let it = of_file(&format!("{{\"feature\": {{\"network\": {text}}}}}"));
        let found = (it.incoming.mode, it.outgoing_tcp, it.outgoing_udp, it.remote_dns);
        assert_eq!(found, expected, "{text}");
    }
}

fn ports(text: &str) -> Result<Vec<(u16, u16)>, Failure> {
    let text = format!("{{\"feature\": {{\"network\": {{\"incoming\": {{{text}}}}}}}}}");
    let incoming = Settings::with(&Options::default(), &file(&text), &|_| None)?.incoming;
    Ok(incoming.ports.iter().map(|port| (port.local, port.remote)).collect())
}

#[test]
fn ports_of_a_file_are_mapped() {
    for (text, expected) in [
        ("", vec![]),
        (r#""ports": [80]"#, vec![(80, 80)]),
        (r#""port_mapping": [[3000, 80], [9, 90]]"#, vec![(3000, 80), (9, 90)]),
        (r#""ports": [3000, 5], "port_mapping": [[3000, 80]]"#, vec![(3000, 80), (5, 5)]),
    ] {
        assert_eq!(ports(text).expect(text), expected);
    }
    let failure = ports(r#""port_mapping": [[1, 80], [1, 81]]"#).expect_err("twice");
    assert!(
        failure.sentence.ends_with("port_mapping: it names the local port 1 twice"),
        "{failure}"
    );
    assert!(ports(r#""ports": [1, 1]"#).is_err());
}

#[test]
fn a_filter_of_requests_never_steals_them_all() {
    let text = |mode: &str| {
        format!(
            r#"{{"feature": {{"network": {{"incoming": {{"mode": "{mode}",
               "http_filter": {{"header_filter": "x: y"}}}}}}}}}}"#
        )
    };
    let told = failure(&text("steal")).sentence;
    let expected = "http_filter: not supported yet, and without it all requests would be stolen";
    assert!(told.ends_with(expected), "{told}");
    let warnings = of_file(&text("mirror")).warnings;
    assert!(warnings[0].ends_with("feature.network.incoming.http_filter does nothing here"));
}

#[test]
fn the_environment_of_a_file_has_short_and_long_forms() {
    let env = |text: &str| of_file(&format!("{{\"feature\": {{\"env\": {text}}}}}")).env;
    assert!(!env("false").wanted() && env("true").wanted());
    assert_eq!(env(r#"{"include": ["A", "B*"]}"#), EnvRules::new(false, Some("A;B*"), None));
    let overrides = vec![("A".to_owned(), "1".to_owned())];
    assert_eq!(
        env(r#"{"override": {"A": "1"}}"#),
        EnvRules::new(false, None, None).with_overrides(overrides)
    );
    let options = Options { override_env_vars_include: Some("A".to_owned()), ..Options::default() };
    assert!(settings(&options, r#"{"feature": {"env": false}}"#).env.wanted());
}

#[test]
fn the_agents_of_a_file_are_as_it_says() {
    let agent = of_file(
        r#"{"agent": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "ttl": 1,
            "tolerations": [{"operator": "Exists"}], "resources": {"limits": {"cpu": 1}},
            "node_selector": {"e": "f"}, "service_account": "g", "exclude_probes": true,
            "startup_timeout": 2, "communication_timeout": 3, "ephemeral": true,
            "image": {"registry": "h", "tag": "i"}, "log_level": "j"}}"#,
    )
    .cluster
    .agent;
    let map = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    let expected = crate::cluster::settings::AgentSettings {
        mode: Some(AgentMode::Ephemeral),
        namespace: None,
        image: Some("h:i".to_owned()),
        labels: map("a", "b"),
        annotations: map("c", "d"),
        tolerations: Some(vec![serde_json::json!({"operator": "Exists"})]),
        resources: Some(serde_json::json!({"limits": {"cpu": 1}})),
        node_selector: map("e", "f"),
        service_account: Some("g".to_owned()),
        exclude_probes: true,
        startup_timeout: 2,
        communication_timeout: 3,
        ttl: 1,
    };
    assert_eq!(agent, expected);
    assert_eq!(of_file("{}").cluster.agent, crate::cluster::settings::AgentSettings::default());
}

#[test]
fn a_tag_of_nothing_is_refused() {
    let sentence = failure(r#"{"agent": {"image": {"tag": "1"}}}"#).sentence;
    assert!(
        sentence.ends_with("agent.image.tag: there is no agent.image.registry that it is a tag of")
    );
}

#[test]
fn a_kubeconfig_is_the_options_then_the_variables_then_the_files() {
    let kubeconfig = |option: Option<&str>, variable: &str, text: &str| {
        let options = Options {
            cluster: ClusterOptions {
                kubeconfig: option.map(Into::into),
                ..ClusterOptions::default()
            },
            ..Options::default()
        };
        let lookup = |name: &str| match name {
            "KUBECONFIG" => Some(variable.to_owned()).filter(|value| !value.is_empty()),
            "HOME" => Some("/home/me".to_owned()),
            _ => None,
        };
        let settings = Settings::with(&options, &file(text), &lookup).expect("settings");
        settings.cluster.access.kubeconfig
    };
    let of_file = r#"{"kubeconfig": "~/file"}"#;
    assert_eq!(kubeconfig(Some("/o"), "/v", of_file).as_deref(), Some("/o"));
    assert_eq!(kubeconfig(None, "/v:/w", of_file).as_deref(), Some("/v:/w"));
    assert_eq!(kubeconfig(None, "", of_file).as_deref(), Some("/home/me/file"));
    assert_eq!(kubeconfig(None, "", "{}"), None);
    let relative = kubeconfig(Some("here"), "", "{}").expect("a path");
    assert!(Path::new(&relative).is_absolute() && relative.ends_with("/here"));
}

#[test]
fn the_log_is_the_variables_then_the_files_then_the_options() {
    let log = |verbose, variable: Option<&str>, text: &str| {
        let options = Options { verbose, ..Options::default() };
        let lookup = |name: &str| (name == "MIRRORD_LOG").then_some(variable?.to_owned());
        Settings::with(&options, &file(text), &lookup).expect("settings").log
    };
    let of_file = r#"{"agent": {"log_level": "trace"}}"#;
    assert_eq!(log(0, Some("error"), of_file), "error");
    assert_eq!(log(1, None, of_file), "trace");
    assert_eq!(
        [log(0, None, "{}"), log(1, None, "{}"), log(2, None, "{}")],
        ["warn", "info", "debug"]
    );
}

#[test]
fn what_cannot_be_a_namespace_is_refused_before_anything_is_asked() {
    let of = |name: &str| {
        let mut options = Options::default();
        options.cluster.target_namespace = Some(name.to_owned());
        Settings::of(&options)
    };
    for bad in ["../x", "a/../b", "Shop", "-a", "a b", &"a".repeat(64)] {
        let failure = of(bad).expect_err(bad);
        assert!(failure.sentence.contains("cannot be a namespace"), "{failure}");
    }
    assert_eq!(of("shop-1").expect("a namespace").cluster.namespace.as_deref(), Some("shop-1"));
}
