//! The commands around sessions: `doctor`, `ls`, completions, and `docker mirrord`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::{Lab, PROBE};
use mirrord_tests::mirrord::binary;
use mirrord_tests::scene::Scene;
use mirrord_tests::{toolbox, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// `mirrord` without a cluster and with a folder of docker's of its own.
fn mirrord(config: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary().canonicalize()?);
    command.env("KUBECONFIG", "/nowhere").env("DOCKER_CONFIG", config);
    command.args(words).output().context("run mirrord")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Topic, state and text.
type Finding = (String, String, String);

/// What `doctor -o json` finds, by topics; whatever is not as it should be says what to do.
fn findings(output: &Output) -> Result<Vec<Finding>> {
    let report: Value = serde_json::from_slice(&output.stdout).context(text(&output.stderr))?;
    let items = report["items"].as_array().context("items")?;
    let word = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    for item in items {
        ensure!(item["state"] == "ok" || !word(item, "hint").is_empty(), "{item}");
    }
    let found =
        items.iter().map(|item| (word(item, "topic"), word(item, "state"), word(item, "text")));
    Ok(found.collect())
}

#[test]
fn doctor_tells_what_the_machine_allows_and_fixes_what_it_can() -> Result<()> {
    let Some(lab) = Lab::open("mirrord doctor")? else {
        return Ok(());
    };
    let config = TempDir::new()?;
    // Where only this test's doctor looks: other sessions sweep as well.
    let temporary = TempDir::new()?;
    let left = temporary.path().join("mirrord-left");
    std::fs::create_dir(&left)?;
    for file in ["lock", "libmirrord_layer.so"] {
        std::fs::File::create(left.join(file))?.set_modified(std::time::UNIX_EPOCH)?;
    }
    let left = left.to_string_lossy().into_owned();
    let doctor = |words: &[&str]| -> Result<(Option<i32>, Vec<Finding>)> {
        let mut command = Command::new(binary().canonicalize()?);
        command.env("KUBECONFIG", "/nowhere").env("DOCKER_CONFIG", config.path());
        // What other sessions have lost is not this test's to stop.
        if words.contains(&"--fix") {
            command.env("DOCKER_HOST", "unix:///run/no-engine.sock");
        }
        command.env("TMPDIR", temporary.path()).args(["doctor", "-o", "json"]).args(words);
        let output = command.output()?;
        Ok((output.status.code(), findings(&output)?))
    };
    let has = |found: &[Finding], topic: &str, state: &str, part: &str| -> Result<()> {
        let fits = |(a, b, c): &Finding| a == topic && b == state && c.contains(part);
        ensure!(found.iter().any(fits), "{topic} {state} {part}: {found:#?}");
        Ok(())
    };
    let (code, found) = doctor(&[])?;
    ensure!(code == Some(0), "{found:#?}");
    let version = lab.docker.run(&["version", "--format", "{{.Server.Version}}"])?;
    has(&found, "engine", "ok", &version)?;
    has(&found, "kernel", "ok", "a container may redirect its network")?;
    has(&found, "client", "ok", "Docker version")?;
    has(&found, "cluster", "note", "")?;
    has(&found, "plugin", "note", "no command yet")?;
    has(&found, "left over", "note", &left)?;
    ensure!(std::fs::read_dir(config.path())?.next().is_none(), "looking changes nothing");

    let (_, found) = doctor(&["--fix"])?;
    has(&found, "plugin", "ok", "is this program now")?;
    has(&found, "left over", "ok", &left)?;
    let (_, found) = doctor(&[])?;
    has(&found, "plugin", "ok", "docker-mirrord")?;
    ensure!(!found.iter().any(|(.., text)| text.contains(&left)), "{found:#?}");
    let all = lab.docker.run(&["ps", "-a", "--no-trunc", "--format", "{{.Command}}"])?;
    ensure!(!all.contains("--check"), "doctor's own container is gone: {all}");
    let lines = text(&mirrord(config.path(), &["doctor"])?.stdout);
    ensure!(lines.contains("✓") && lines.ends_with("\nsessions can run\n"), "{lines}");
    Ok(())
}

#[test]
fn doctor_works_without_an_engine_and_says_so() -> Result<()> {
    let config = TempDir::new()?;
    let output = Command::new(binary())
        .args(["doctor", "-o", "json"])
        .env("DOCKER_CONFIG", config.path())
        .env("DOCKER_HOST", "unix:///run/no-engine.sock")
        .env("KUBECONFIG", "/nowhere")
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let found = findings(&output)?;
    let of = |wanted: &str| found.iter().find(|(topic, ..)| topic == wanted).context("a finding");
    ensure!(of("engine")?.1 == "missing" && of("engine")?.2.contains("/run/no-engine.sock"));
    ensure!(of("kernel")?.2.starts_with("Linux "), "{found:#?}");
    Ok(())
}

#[test]
fn ls_lists_containers_in_three_forms() -> Result<()> {
    let Some(lab) = Lab::open("mirrord ls")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().probe("app")?;
    let config = TempDir::new()?;
    let list = |form: &str| -> Result<String> {
        let output = mirrord(config.path(), &["ls", "-t", "container", "-o", form])?;
        ensure!(output.status.success(), "{output:?}");
        Ok(text(&output.stdout))
    };
    let (target, client) = (scene.target.target(), scene.client.target());
    let names = list("name")?;
    let names: BTreeSet<&str> = names.lines().collect();
    ensure!(names.contains(&*target) && names.contains(&*client), "{names:?}");
    ensure!(!names.iter().any(|name| name.contains(&session.name)), "no target: {names:?}");
    let table = list("table")?;
    ensure!(table.starts_with("TARGET"), "{table}");
    ensure!(table.lines().any(|line| line == target), "{table}");
    let json: Vec<Value> = serde_json::from_str(&list("json")?)?;
    let row = serde_json::json!({"type": "container", "name": scene.target.name});
    ensure!(json.contains(&row), "{json:?}");
    Ok(())
}

/// docker with a folder of its own, in which `mirrord` is a command.
struct Plugin(TempDir);

impl Plugin {
    fn link() -> Result<Self> {
        let config = TempDir::new()?;
        let folder = config.path().join("cli-plugins");
        std::fs::create_dir(&folder)?;
        std::os::unix::fs::symlink(binary().canonicalize()?, folder.join("docker-mirrord"))?;
        Ok(Self(config))
    }

    fn docker(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(words).env("DOCKER_CONFIG", self.0.path()).env("KUBECONFIG", "/nowhere");
        command
    }
}

#[test]
fn docker_mirrord_run_is_a_session() -> Result<()> {
    let Some(lab) = Lab::open("docker mirrord")? else {
        return Ok(());
    };
    let scene = Scene::open_with(&lab, &["-e", "WHO=far"])?;
    let plugin = Plugin::link()?;
    let help = text(&plugin.docker(&["--help"]).output()?.stdout);
    ensure!(help.contains("mirrord*") && help.contains("another one's place"), "{help}");
    let target = scene.target.target();
    for globals in [&[][..], &["--context", "default"]] {
        let words = ["mirrord", "-t", &target, "run", "--rm", PROBE];
        let done = plugin.docker(&[globals, &words, &["env"]].concat()).output()?;
        ensure!(
            done.status.success() && text(&done.stdout).contains("\"WHO\":\"far\""),
            "{done:?}"
        );
        let done = plugin.docker(&[globals, &words, &["exit", "9"]].concat()).output()?;
        assert_eq!(done.status.code(), Some(9), "{done:?}");
    }
    let done = plugin.docker(&["mirrord", "-t", &target, "run", "--nonsense", PROBE]).output()?;
    ensure!(done.status.code() == Some(125) && text(&done.stderr).contains("hint: "), "{done:?}");
    let done = plugin.docker(&["mirrord", "ls", "-t", "container", "-o", "name"]).output()?;
    ensure!(text(&done.stdout).contains(&target), "{done:?}");
    let done = mirrord(plugin.0.path(), &["-t", &target, "run", "--rm", PROBE])?;
    ensure!(
        done.status.code() == Some(125) && text(&done.stderr).contains("docker run"),
        "{done:?}"
    );
    Ok(())
}

#[test]
fn a_signal_to_docker_ends_the_session_of_its_plugin() -> Result<()> {
    let Some(lab) = Lab::open("a signal to docker mirrord")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let plugin = Plugin::link()?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let name = lab.name("app");
        lab.adopt(&name);
        let target = scene.target.target();
        let words = ["mirrord", "-t", &target, "--steal", "run", "--rm", "--name", &name, PROBE];
        let mut docker =
            plugin.docker(&[&words[..], &["serve", "http", "0.0.0.0:80", "local"]].concat());
        let mut docker = docker.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        // Open to the end: docker's client leaves an app whose output nobody takes.
        let mut output = BufReader::new(docker.stdout.take().context("a pipe")?);
        output.read_line(&mut line)?;
        scene.until_answered_by("local", 80)?;
        kill(Pid::from_raw(i32::try_from(docker.id())?), signal)?;
        docker.wait()?;
        wait::within(Duration::from_secs(60), "the end of the session", || {
            let filter = format!("name={name}");
            let left = lab.docker.run(&["ps", "-aq", "--filter", &filter])?;
            Ok((left.is_empty() && scene.answers(80)?["name"] == "original").then_some(()))
        })?;
    }
    Ok(())
}

/// What a real shell offers behind `line`, with the script loaded.
fn offered(shell: &str, script: &Path, line: &str) -> Result<String> {
    let script = script.to_string_lossy();
    let words: Vec<&str> = line.split(' ').collect();
    let code = match shell {
        "bash" => format!(
            "source {script}; COMP_WORDS=({line}); COMP_CWORD={}; \
             $(complete -p mirrord | sed 's/.*-F \\([^ ]*\\).*/\\1/') mirrord \"{}\" \"{}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        ),
        "fish" => format!("source {script}; complete -C '{line}'"),
        // A terminal of its own, in which the key for completion lists what there is.
        "zsh" => format!(
            "zmodload zsh/zpty; zpty shell zsh -f -i; \
             zpty -w shell 'PS1=; autoload -Uz compinit; compinit -D -u; source {script}; \
             LISTMAX=1000; setopt noautomenu; bindkey \"^I\" list-choices; echo load''ed'; \
             zpty -r shell out '*loaded*'; zpty -w -n shell $'{line}\\t'; \
             repeat 40; do sleep 0.1; zpty -r -t shell more && print -r -- \"$more\"; done"
        ),
        other => anyhow::bail!("no way to ask {other}"),
    };
    let output = Command::new(shell).args(["-c", &code]).env("TERM", "dumb").output()?;
    Ok(text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn completions_are_offered_by_the_real_shells() -> Result<()> {
    let folder = TempDir::new()?;
    for shell in ["bash", "zsh", "fish"] {
        if !toolbox::all(&format!("completions of {shell}"), &[shell])? {
            continue;
        }
        let script = folder.path().join(shell);
        let output = mirrord(folder.path(), &["completions", shell])?;
        ensure!(output.status.success(), "{output:?}");
        std::fs::write(&script, output.stdout)?;
        for (line, expected, not) in [
            ("mirrord doc", ["doctor", "docker"], "completions"),
            ("mirrord --no-", ["--no-env", "--no-outgoing"], "--steal"),
            ("mirrord doctor --role ", ["job", "ephemeral"], "--steal"),
        ] {
            let offered = offered(shell, &script, line)?;
            for word in expected {
                ensure!(offered.contains(word), "{shell}: {line:?}: {word} is not in {offered}");
            }
            ensure!(!offered.contains(not), "{shell}: {line:?}: {not} is in {offered}");
        }
    }
    Ok(())
}
