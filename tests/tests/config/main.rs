//! Every key of a configuration file, and the option and the variable that ask for the same: what
//! they do is seen in a running session. Those that take a cluster are in `cluster/config.rs`.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::{DEBIAN, Lab, PROBE};
use mirrord_tests::mirrord::{Mirrord, Session};
use mirrord_tests::scene::Scene;
use mirrord_tests::setting::Given;
use mirrord_tests::{toolbox, wait};

use self::rows::Way::{Docker, Options, Variable};
use self::rows::{ELSEWHERE, ENVIRONMENT, HOLDERS, INCOMING, LAYER, OUTGOING, Row};

/// How long something may take to happen that a setting prevents.
const MOMENT: Duration = Duration::from_millis(1200);

/// The variable of an app that has no target of its own but what the setting says.
fn whose_variable(scene: &Scene<'_>, given: &Given) -> Result<String> {
    let nowhere = Mirrord::targetless(scene.lab).env("KUBECONFIG", "/nowhere");
    let done = given.to(nowhere).finish(PROBE, &["env"])?;
    Ok(match done.stdout.contains(r#""WHO":"there""#) {
        true => "there".to_owned(),
        false => format!("exit code {}", done.code),
    })
}

fn variables(scene: &Scene<'_>, given: &Given) -> Result<String> {
    let session = given.to(scene.mirrord()).probe("app")?;
    let env = session.app().must("env")?["env"].clone();
    let value = |name: &str| env[name].as_str().unwrap_or("-").to_owned();
    Ok(format!("{} {}", value("WHO"), value("OTHER")))
}

fn host_name(scene: &Scene<'_>, given: &Given) -> Result<String> {
    let target = scene.target.probe().must("hostname")?["hostname"].clone();
    let session = given.to(scene.mirrord()).probe("app")?;
    let own = session.app().must("hostname")?["hostname"].clone();
    Ok(if own == target { "the target's" } else { "another" }.to_owned())
}

fn log(scene: &Scene<'_>, given: &Given) -> Result<String> {
    let done = given.to(scene.mirrord()).with(["-v"]).finish(PROBE, &["exit", "0"])?;
    ensure!(done.code == 0, "{done:?}");
    let told = done.stderr.contains("INFO");
    Ok(if told { "with INFO" } else { "without INFO" }.to_owned())
}

/// Whoever answers the client, once the app had a moment to.
fn traffic(scene: &Scene<'_>, given: &Given) -> Result<String> {
    let session = given.to(scene.mirrord()).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 app")?;
    let heard = || !session.app().events("request").is_empty();
    let mut answered = String::new();
    let _ = wait::within(MOMENT, "a request at the app", || {
        answered = answers(scene, 80)?;
        Ok(heard().then_some(()))
    });
    let told = if heard() { ", which heard it" } else { "" };
    Ok(match (answered.as_str(), told) {
        ("original", ", which heard it") => "answered by original, and the app heard it".to_owned(),
        (name, told) => format!("answered by {name}{told}"),
    })
}

/// Whoever answers on the target's ports while the app listens on three.
fn ports(scene: &Scene<'_>, given: &Given) -> Result<String> {
    let session = given.to(scene.mirrord()).probe("app")?;
    for port in [80, 81, 8080] {
        session.app().must(&format!("serve http 0.0.0.0:{port} app{port}"))?;
    }
    let all = || -> Result<String> {
        Ok(format!("80 {}, 81 {}", answers(scene, 80)?, answers(scene, 81)?))
    };
    let _ =
        wait::within(MOMENT, "an answer of the app", || Ok(all()?.contains("app").then_some(())));
    // Another port may be a moment behind.
    std::thread::sleep(MOMENT / 4);
    all()
}

fn answers(scene: &Scene<'_>, port: u16) -> Result<String> {
    Ok(scene.answers(port)?["name"].as_str().unwrap_or_default().to_owned())
}

/// What leaves from the target: only that reaches the client.
fn leaves(scene: &Scene<'_>, given: &Given) -> Result<String> {
    let address = scene.client.address()?;
    let session = given.to(scene.mirrord()).probe("app")?;
    let works = |command: &str| -> Result<bool> { Ok(session.app().ask(command)?["ok"] == true) };
    let tcp = works(&format!("connect {address}:7000 1200"))?;
    let udp = works(&format!("udp {address}:7001 hello"))?;
    Ok(match (tcp, udp) {
        (true, true) => "TCP and UDP",
        (true, false) => "TCP",
        (false, true) => "UDP",
        (false, false) => "neither",
    }
    .to_owned())
}

/// Whether a name that only the target's network has is known.
fn name(scene: &Scene<'_>, given: &Given) -> Result<String> {
    let words = ["timeout", "3", "getent", "hosts", "client"];
    let done = given.to(scene.mirrord()).finish(DEBIAN, &words)?;
    Ok(if done.code == 0 { "known" } else { "unknown" }.to_owned())
}

/// Programs whose connections do not leave from the target, though they should.
fn tools(scene: &Scene<'_>, given: &Given) -> Result<String> {
    let address = scene.client.address()?;
    let folder = tempfile::tempdir()?;
    let mut alone = String::from("left alone:");
    for tool in ["gcc", "a-tool"] {
        let program = folder.path().join(tool);
        fs::copy(toolbox::path("probe"), &program)?;
        let line = [&*program.to_string_lossy(), "ask", &format!("{address}:7000"), "whoami"];
        let done = given.to_exec(scene.exec()).finish(&line)?;
        ensure!(done.code == 0, "{done:?}");
        let answer: serde_json::Value = serde_json::from_str(&done.stdout)?;
        let peer = answer["answer"]["peer"].as_str().unwrap_or_default().to_owned();
        if !peer.starts_with(&format!("{}:", scene.address)) {
            alone += &format!(" {tool}");
        }
    }
    Ok(alone)
}

/// Sees what is without the settings, then each of them in each of its ways.
fn observe(test: &str, rows: &[Row]) -> Result<()> {
    let Some(lab) = Lab::open(test)? else {
        return Ok(());
    };
    let scene = Scene::open_with(&lab, &["-e", "WHO=there", "-e", "OTHER=too"])?;
    scene.target.probe().must("serve http 0.0.0.0:81 original")?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    scene.client().must("serve udp 0.0.0.0:7001 peer")?;
    let target = scene.target.target();
    let words = |text: &str| -> Vec<String> {
        text.split(' ').map(|word| word.replace("TARGET", &target)).collect()
    };
    let mut without: BTreeMap<usize, String> = BTreeMap::new();
    for Row { key, file, ways, observe, seen } in rows {
        let usual = match without.get(&(*observe as usize)) {
            Some(usual) => usual.clone(),
            None => observe(&scene, &Given::default())?,
        };
        assert_ne!(usual, *seen, "{key}: without it");
        without.insert(*observe as usize, usual);
        let given = Given::by_file("mirrord.json", &file.replace("TARGET", &target))?;
        let told = |given: &Given| observe(&scene, given).with_context(|| (*key).to_owned());
        assert_eq!(told(&given)?, *seen, "{key} in a file");
        for way in *ways {
            let (given, how) = match way {
                Options(text) => (Given::by_options(&words(text)), *text),
                Docker(text) => (Given::by_docker(&words(text)), *text),
                Variable(name, value) => {
                    (Given::by_variable(name, &value.replace("TARGET", &target)), *name)
                }
            };
            assert_eq!(told(&given)?, *seen, "{key} by {how}");
        }
    }
    Ok(())
}

#[test]
fn targets_variables_names_and_logs_are_as_the_settings_say() -> Result<()> {
    observe("settings of the environment", ENVIRONMENT)
}

#[test]
fn incoming_traffic_is_as_the_settings_say() -> Result<()> {
    observe("settings of incoming traffic", INCOMING)
}

#[test]
fn outgoing_traffic_is_as_the_settings_say() -> Result<()> {
    observe("settings of outgoing traffic", OUTGOING)
}

#[test]
fn the_preload_library_leaves_alone_what_the_settings_say() -> Result<()> {
    match toolbox::all("settings of the layer", &["probe"])? {
        true => observe("settings of the layer", LAYER),
        false => Ok(()),
    }
}

/// The keys of the table that is generated from the product's own.
fn documented() -> BTreeSet<&'static str> {
    let docs = include_str!("../../../docs/configuration.md");
    let table = docs.split("## Keys\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let lines = table.unwrap_or_default().lines();
    lines.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

#[test]
fn every_key_that_does_something_is_seen_to_do_it() {
    let rows = [ENVIRONMENT, INCOMING, OUTGOING, LAYER].concat_keys();
    let cluster = include_str!("../cluster/config.rs");
    let missing: Vec<_> = documented()
        .into_iter()
        .filter(|key| !rows.contains(key) && !HOLDERS.contains(key))
        .filter(|key| !ELSEWHERE.iter().any(|(other, ..)| other == key))
        .filter(|key| !cluster.contains(key))
        .collect();
    assert!(missing.is_empty(), "no test sees the effect of {missing:?}");
    assert!(documented().len() > 40, "the table of the docs is read");
    for (key, file, test) in ELSEWHERE {
        let body = file.split(&format!("fn {test}(")).nth(1).unwrap_or_default();
        let body = body.split("\n}\n").next().unwrap_or_default();
        let last = key.rsplit('.').next().unwrap_or(key);
        assert!(body.contains(last), "{test} has {key} in it");
    }
}

trait Keys {
    fn concat_keys(&self) -> BTreeSet<&'static str>;
}

impl Keys for [&[Row]; 4] {
    fn concat_keys(&self) -> BTreeSet<&'static str> {
        self.iter().flat_map(|rows| rows.iter().map(|row| row.key)).collect()
    }
}

#[test]
fn a_file_in_any_format_may_ask_for_variables_and_is_found_by_variable_and_by_folder() -> Result<()>
{
    let Some(lab) = Lab::open("forms of configuration files")? else {
        return Ok(());
    };
    let scene = Scene::open_with(&lab, &["-e", "WHO=there"])?;
    let target = scene.target.target();
    let folder = tempfile::tempdir()?;
    let write = |name: &str, content: &str| -> Result<String> {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().context("a folder")?)?;
        fs::write(&file, content)?;
        Ok(file.to_string_lossy().into_owned())
    };
    let template = r#"{{ get_env(name="WHOSE", default="container/none") }}"#;
    let yaml = write("a.yaml", &format!("target: {template}\nfeature:\n  hostname: true\n"))?;
    let toml = write("a.toml", &format!("target = '{template}'\n"))?;
    write(
        ".mirrord/mirrord.json",
        &format!("{{\n  // whose\n  \"target\": '{template}',\n}}").replace('\'', "\""),
    )?;
    let run = |file: Option<&str>, variable: &str| -> Result<Session<'_>> {
        let mut mirrord = Mirrord::targetless(&lab).env("WHOSE", variable);
        if let Some(file) = file {
            mirrord = mirrord.env("MIRRORD_CONFIG_FILE", file);
        }
        mirrord.within(folder.path()).start("app", PROBE, &["env"])
    };
    for file in [Some(yaml.as_str()), Some(toml.as_str()), None] {
        let done = run(file, &target)?.finish()?;
        ensure!(done.stdout.contains(r#""WHO":"there""#), "{file:?}: {done:?}");
        let done = run(file, "")?.finish()?;
        ensure!(done.code == 125, "{file:?}: {done:?}");
    }
    Ok(())
}
