use std::fmt::Write;

use insta::assert_snapshot;

use super::keys::{KEYS, Key, Status};
use super::*;
use crate::failure::Failure;

fn of(file: &str, text: &str) -> Result<Config, ConfigError> {
    let lookup = |name: &str| (name == "TOKEN").then(|| "hunter2\"".to_owned());
    let format = Format::of(Path::new(file)).expect("a format");
    Config::of(file.to_owned(), format, text.to_owned(), &lookup)
}

/// What the user reads.
fn told(file: &str, text: &str) -> String {
    let failure = Failure::from(of(file, text).err().expect(text));
    let mut told = failure.sentence;
    for cause in failure.causes {
        let _ = write!(told, "\n  {cause}");
    }
    if let Some(hint) = failure.hint {
        let _ = write!(told, "\nhint: {hint}");
    }
    told
}

#[test]
fn the_table_of_keys_is_whole() {
    for (at, key) in KEYS.iter().enumerate() {
        assert!(!KEYS[..at].iter().any(|other| other.path == key.path), "{} twice", key.path);
        assert!(!key.kinds.is_empty() && !key.what.is_empty(), "{}", key.path);
        if !key.parent().is_empty() {
            let parent = Key::at(key.parent()).expect(key.path);
            assert!(parent.kinds.contains(&kinds::Kind::Object), "{}", key.path);
        }
    }
}

#[test]
fn the_same_is_read_from_every_format() {
    let json = r#"{"target": {"path": "pod/a", "namespace": "shop"}, "agent": {"ttl": 5}}"#;
    let yaml = "target:\n  path: pod/a\n  namespace: shop\nagent: {ttl: 5}\n";
    let toml = "[target]\npath = 'pod/a'\nnamespace = 'shop'\n[agent]\nttl = 5\n";
    for (file, text) in [("a.json", json), ("a.yaml", yaml), ("a.yml", yaml), ("a.toml", toml)] {
        let config = of(file, text).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(config.text("target.path"), Some("pod/a"));
        assert_eq!(config.text("target.namespace"), Some("shop"));
        assert_eq!(config.count("agent.ttl"), Some(5));
        assert_eq!(config.warning(), None);
    }
}

#[test]
fn an_empty_file_says_nothing() {
    for file in ["a.json", "a.yaml", "a.toml"] {
        assert!(of(file, "\n").expect(file).get("target").is_none());
    }
    let nothing = of("a.json", "{\"target\": null, \"agent\": null}").expect("nothing");
    assert!(nothing.get("target").is_none() && nothing.get("agent.ttl").is_none());
}

#[test]
fn what_is_known_and_not_done_is_one_warning() {
    let text = r#"{"operator": true, "telemetry": false,
        "feature": {"split_queues": {"a": {}}, "fs": "local", "hostname": true}}"#;
    let config = of(".mirrord/mirrord.json", text).expect("a good file");
    assert_snapshot!(
        config.warning().expect("a warning"),
        @".mirrord/mirrord.json: operator, telemetry and feature.split_queues do nothing here"
    );
    let config = of("a.json", r#"{"operator": false}"#).expect("a good file");
    assert_snapshot!(config.warning().expect("a warning"), @"a.json: operator does nothing here");
}

#[test]
fn unknown_keys_are_named_with_their_place_and_the_nearest_one() {
    assert_snapshot!(told("a.json", "{\n  \"feature\": {\n    \"netwrok\": true\n  }\n}"), @r"
    a.json:3:5: there is no key feature.netwrok
    hint: did you mean feature.network?
    ");
    assert_snapshot!(told("a.yaml", "feature:\n  network:\n    incomming: steal\n"), @r"
    a.yaml:3:5: there is no key feature.network.incomming
    hint: did you mean feature.network.incoming?
    ");
    assert_snapshot!(told("a.toml", "[agent]\nimages = 'x'\n"), @r"
    a.toml:2:1: there is no key agent.images
    hint: did you mean agent.image?
    ");
    assert_snapshot!(told("a.json", "{\"namespace\": \"x\"}"), @r"
    a.json:1:2: there is no key namespace
    hint: did you mean target.namespace?
    ");
    assert_snapshot!(told("a.json", "{\"qwertyuiop\": 1}"), @"a.json:1:2: there is no key qwertyuiop");
}

#[test]
fn wrong_values_are_named_with_their_place_and_what_was_expected() {
    assert_snapshot!(told("a.json", "{\"feature\": {\"network\": {\"dns\": 5}}}"),
        @"a.json:1:33: feature.network.dns must be true or false, or an object; here is a number");
    assert_snapshot!(told("a.yaml", "feature:\n  network:\n    incoming: stael\n"),
        @r#"a.yaml:3:15: feature.network.incoming must be true or false, or one of mirror, steal, off, or an object; here is "stael""#);
    assert_snapshot!(told("a.toml", "[agent]\nstartup_timeout = -1\n"),
        @"a.toml:2:19: agent.startup_timeout must be a whole number; here is -1");
    assert_snapshot!(told("a.json", "{\"feature\": {\"env\": {\"override\": {\"A\": 1}}}}"),
        @"a.json:1:40: feature.env.override must be an object of strings; here is a number");
    assert_snapshot!(
        told("a.json", "{\"feature\":{\"network\":{\"incoming\":{\"port_mapping\":[[1,2],[3]]}}}}"),
        @"a.json:1:58: feature.network.incoming.port_mapping must be a list of [LOCAL, REMOTE] ports; here is a list"
    );
    assert_snapshot!(
        told("a.json", "{\"feature\":{\"network\":{\"incoming\":{\"ports\":[80, 70000]}}}}"),
        @"a.json:1:49: feature.network.incoming.ports must be a list of ports; here is 70000"
    );
    assert_snapshot!(told("a.json", "{\"target\": {\"path\": {\"deploy\": \"x\"}}}"),
        @r#"a.json:1:21: target.path must be a string, or an object such as {"deployment": NAME}; here is another one"#);
    assert_snapshot!(told("a.json", "[1]"), @"a.json:1:1: the file must be an object; here is a list");
}

#[test]
fn keys_that_stand_twice_are_refused() {
    assert_snapshot!(told("a.json", "{\"target\": \"pod/a\",\n \"target\": \"pod/b\"}"),
        @"a.json:2:2: target is given twice");
    assert_snapshot!(told("a.json", "{\"agent\": {\"labels\": {\"a\": \"1\", \"a\": \"2\"}}}"),
        @"a.json:1:33: agent.labels.a is given twice");
}

#[test]
fn several_mistakes_are_all_named() {
    assert_snapshot!(told("a.json", "{\"targt\": 1,\n\"agent\": {\"ttl\": \"x\"}}"), @r"
    the configuration file a.json has 2 mistakes
      a.json:1:2: there is no key targt (did you mean target?)
      a.json:2:18: agent.ttl must be a whole number; here is a string
    ");
}

#[test]
fn broken_files_are_named_with_their_place() {
    assert_snapshot!(told("a.json", "{\n  \"a\" 1}"), @"a.json:2:7: expected a colon behind the key, found '1'");
    assert_snapshot!(told("a.toml", "a = \n"), @"a.toml:1:5: string values must be quoted, expected literal string");
    assert_snapshot!(told("a.json", "{\"target\": \"{{ get_env(name=\"NONE\") }}\"}"), @r"
    a.json:1:13: the environment variable NONE is not set
    hint: set it, or give get_env a default
    ");
    assert_snapshot!(told("a.json", "{\"key\": \"{{ git_branch }}\"}"), @r#"
    a.json:1:10: the template {{ git_branch }} is not supported
    hint: supported is {{ get_env(name="NAME", default="value") }}
    "#);
}

#[test]
fn places_behind_a_template_are_those_of_the_file() {
    let text = "{\"target\": \"{{ get_env(name=\"T\", default=\"pod/a\") }}\", \"agnet\": 1}";
    let column = text.find("\"agnet\"").expect("a key") + 1;
    assert!(told("a.json", text).starts_with(&format!("a.json:1:{column}: ")));
}

#[test]
fn what_a_variable_holds_is_never_printed() {
    for text in [
        "{\"kube_context\": \"{{ get_env(name=\"TOKEN\") }}\"}",
        "{\"agent\": {\"labels\": [\"{{ get_env(name=\"TOKEN\") }}]}}",
        "{\"agent\": {\"ttl\": \"{{ get_env(name=\"TOKEN\") }}}}",
    ] {
        let told = told("a.json", text);
        assert!(!told.contains("hunter"), "{told}");
    }
}

#[test]
fn every_key_is_known_to_the_checker_and_takes_only_its_kinds() {
    for key in KEYS {
        let nest = |value: &str| {
            key.path
                .rsplit('.')
                .fold(value.to_owned(), |inner, name| format!("{{\"{name}\": {inner}}}"))
        };
        of("a.json", &nest("null")).unwrap_or_else(|error| panic!("{}: {error}", key.path));
        let told = told("a.json", &nest("-1.5"));
        assert!(told.contains(&format!("{} must be ", key.path)), "{told}");
    }
}

#[test]
fn files_are_found_named_and_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let nothing = |_: &str| None;
    let none = Config::find(None, folder.path(), &nothing).expect("no file");
    assert!(none.get("target").is_none());
    let read = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        Config::read(&path, &nothing).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(read("a.json", &vec![b' '; 1024 * 1024 + 1]).ends_with("is longer than 1024 KiB"));
    assert_eq!(read("b.json", &vec![b' '; 1024 * 1024]), "");
    assert!(read("a.json", &[0xff]).ends_with("is not UTF-8"));
    assert!(read("a.ini", b"").ends_with("is none of .json, .yaml, .yml and .toml"));
    let missing = Config::read(&folder.path().join("none.json"), &nothing).err().expect("missing");
    assert!(missing.to_string().starts_with("there is no configuration file"));
    let is_folder = folder.path().join("f.json");
    std::fs::create_dir(&is_folder).expect("a folder");
    assert!(matches!(Config::read(&is_folder, &nothing), Err(ConfigError::Read { .. })));
}

#[test]
fn every_key_that_is_done_is_read() {
    let code = [
        include_str!("../settings.rs"),
        include_str!("../settings/cluster.rs"),
        include_str!("../settings/incoming.rs"),
        include_str!("../settings/layer.rs"),
    ];
    for key in KEYS.iter().filter(|key| key.status == Status::Done) {
        let read = code.iter().any(|code| code.contains(&format!("\"{}\"", key.path)));
        let group = ["$schema", "feature", "agent", "agent.image.registry", "agent.image.tag"];
        assert!(read || group.contains(&key.path), "{} is not read", key.path);
    }
}
