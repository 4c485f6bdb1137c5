//! What goes wrong is told in one sentence, with a hint, and with the right exit code.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use mirrord_tests::lab::{Lab, PROBE};
use mirrord_tests::mirrord::{Finished, Mirrord, binary};
use mirrord_tests::skip;
use nix::unistd::geteuid;

fn mirrord(words: &[&str], env: &[(&str, &str)]) -> Result<Output> {
    Command::new(binary())
        .args(words)
        .envs(env.iter().copied())
        .output()
        .with_context(|| format!("run {}", binary().display()))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One sentence, then a hint; nothing on standard output, nothing of the user's has run.
fn refused(done: &Finished, parts: &[&str]) {
    assert_eq!(done.code, 125, "{done:?}");
    assert_eq!(done.stdout, "", "{done:?}");
    assert!(done.stderr.contains("error: "), "{}", done.stderr);
    for part in parts {
        assert!(done.stderr.contains(part), "{part:?} is not in {}", done.stderr);
    }
}

#[test]
fn a_target_that_does_not_exist_is_named_with_what_does() -> Result<()> {
    let Some(lab) = Lab::open("an unknown target")? else {
        return Ok(());
    };
    let target = lab.container("orders").probe()?;
    let asked = lab.name("order");
    let done = Mirrord::new(&lab, &format!("container/{asked}")).finish(PROBE, &["true"])?;
    refused(&done, &[&asked, &target.name, "hint: "]);
    Ok(())
}

#[test]
fn a_target_that_does_not_run_is_told_with_its_state() -> Result<()> {
    let Some(lab) = Lab::open("a stopped target")? else {
        return Ok(());
    };
    let target = lab.container("orders").start(PROBE, &["exit", "7"])?;
    lab.docker.run(&["wait", &target.name])?;
    let done = Mirrord::new(&lab, &target.target()).finish(PROBE, &["true"])?;
    refused(&done, &[&target.name, "7", "hint: "]);
    Ok(())
}

#[test]
fn a_target_that_is_no_type_and_name_is_told_with_the_types() -> Result<()> {
    let Some(lab) = Lab::open("kinds of targets")? else {
        return Ok(());
    };
    for target in ["orders", "container/", "nonsense/orders"] {
        refused(
            &Mirrord::new(&lab, target).finish(PROBE, &["true"])?,
            &[target.trim_end_matches("/orders"), "container", "hint: "],
        );
    }
    Ok(())
}

#[test]
fn no_engine_is_told_with_what_was_tried() -> Result<()> {
    let words = ["-t", "container/orders", "docker", "run", "--rm", PROBE];
    let output = mirrord(&words, &[("DOCKER_HOST", "unix:///run/no-engine.sock")])?;
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(stderr(&output).contains("/run/no-engine.sock"), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: "), "{}", stderr(&output));
    Ok(())
}

#[test]
fn an_engine_that_this_user_may_not_use_is_told() -> Result<()> {
    if !geteuid().is_root() {
        return skip::missing("an engine without permission", "root");
    }
    let Some(_lab) = Lab::open("an engine without permission")? else {
        return Ok(());
    };
    let folder = std::env::temp_dir().join(format!("mirrord-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let copy = folder.join("mirrord");
    std::fs::copy(binary(), &copy)?;
    let output = Command::new(&copy)
        .args(["-t", "container/orders", "docker", "run", "--rm", PROBE])
        .env("HOME", "/")
        .uid(65534)
        .gid(65534)
        .output();
    std::fs::remove_dir_all(&folder)?;
    let output = output?;
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(stderr(&output).to_lowercase().contains("permission"), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: "), "{}", stderr(&output));
    Ok(())
}

#[test]
fn misuse_in_front_of_docker_run_is_told_and_exits_with_125() -> Result<()> {
    let cases: [(&[&str], &str); 4] = [
        (&["--stea", "-t", "container/a", "docker", "run", PROBE], "--steal"),
        (&["-t", "container/a", "docker", "run", "--nonsense", PROBE], "--nonsense"),
        (&["-t", "container/a", "docker", "run"], "requires at least 1 argument"),
        (&["docker", "run", PROBE], "target"),
    ];
    for (words, part) in cases {
        let output = mirrord(words, &[])?;
        assert_eq!(output.status.code(), Some(125), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).to_lowercase().contains(part), "{words:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    Ok(())
}

#[test]
fn flags_that_cannot_be_kept_are_refused_with_a_reason() -> Result<()> {
    let Some(lab) = Lab::open("refused flags")? else {
        return Ok(());
    };
    let target = lab.container("orders").probe()?;
    for flags in [["--network", "host"], ["--network", "none"], ["--network", "container:x"]] {
        let done = Mirrord::new(&lab, &target.target()).docker(flags).finish(PROBE, &["true"])?;
        refused(&done, &["network", flags[1], "hint: "]);
    }
    Ok(())
}

#[test]
fn other_commands_exit_with_0_1_or_2() -> Result<()> {
    let version = mirrord(&["--version"], &[])?;
    assert_eq!(version.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("mirrord "));
    assert_eq!(mirrord(&["completions", "bash"], &[])?.status.code(), Some(0));
    assert_eq!(mirrord(&["no-such-command"], &[])?.status.code(), Some(2));
    Ok(())
}
