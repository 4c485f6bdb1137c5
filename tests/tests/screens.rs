//! What a user sees on a terminal, wide and narrow, and what is written where there is none.

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use insta::assert_snapshot;
use mirrord_tests::lab::{Container, DEBIAN, Lab, PROBE};
use mirrord_tests::mirrord::{Mirrord, binary};
use mirrord_tests::screen::Screen;
use serde_json::Value;

/// As long as the target's name, so that lines break where they would.
const TARGET: &str = "orders-and-parts";

/// A target whose name is as long as [`TARGET`], whatever the lab is called.
fn target(lab: &Lab) -> Result<Container<'_>> {
    let pad = TARGET.len().saturating_sub(lab.name("").len());
    lab.container(&"x".repeat(pad)).probe()
}

/// With the same times, names and spinner each time.
fn neutral(text: &str, target: &Container<'_>) -> String {
    let text = text.replace(&target.name, TARGET);
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let number: String =
            rest[at..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let behind = &rest[at + number.len()..];
        let is_time = behind.starts_with(" s)") && number.contains('.');
        out += &rest[..at];
        out += if is_time { "0.00" } else { &number };
        rest = behind;
    }
    out + rest
}

/// The screen of a run that has ended.
fn run(lab: &Lab, target: &Container<'_>, columns: u16, env: &[(&str, &str)]) -> Result<String> {
    let mut mirrord = Mirrord::new(lab, &target.target()).docker(["-t"]);
    for (name, value) in env {
        mirrord = mirrord.env(name, value);
    }
    let command = mirrord.command(&lab.name("app"), DEBIAN, &["echo", "hello from the app"]);
    let Some(screen) = Screen::open("a screen", columns, &command)? else {
        return Ok(String::new());
    };
    assert_eq!(screen.end()?, "0", "{}", screen.shows(false)?);
    Ok(neutral(&screen.shows(true)?, target).replace('\u{1b}', "ESC"))
}

#[test]
fn a_run_is_one_line_before_the_apps_own() -> Result<()> {
    let Some(lab) = Lab::open("the screen of a run")? else {
        return Ok(());
    };
    let target = target(&lab)?;
    assert_snapshot!(run(&lab, &target, 120, &[])?, @r"
    ESC[36mmirrord:ESC[39m in the place of container/orders-and-parts, with a copy of its traffic (0.00 s)
    hello from the app
    ");
    assert_snapshot!(run(&lab, &target, 40, &[("NO_COLOR", "1")])?, @r"
    mirrord: in the place of
             container/orders-and-parts,
             with a copy of its traffic
             (0.00 s)
    hello from the app
    ");
    Ok(())
}

#[test]
fn what_is_waited_for_is_shown_and_leaves_no_trace() -> Result<()> {
    let Some(lab) = Lab::open("the screen of a start")? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("docker.sock");
    let _silent = UnixListener::bind(&socket)?;
    let host = format!("unix://{}", socket.display());
    let mut command = Command::new(binary());
    command.args(["-t", "container/web", "docker", "-H", &host, "run", PROBE, "true"]);
    lab.docker.aim(&mut command);
    let Some(screen) = Screen::open("the screen of a start", 40, &command)? else {
        return Ok(());
    };
    let shown = screen.until("looking for the target")?;
    let (spinner, words) = shown.split_once(' ').context("a spinner")?;
    assert!(spinner.chars().count() == 1 && !spinner.is_ascii(), "{shown}");
    assert!(words.starts_with("mirrord: looking for the target"), "{shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let begun = Instant::now();
    screen.press("C-c")?;
    assert_eq!(screen.end()?, "130");
    assert!(begun.elapsed() < Duration::from_secs(5), "the engine is not waited for");
    assert_eq!(screen.shows(false)?.replace("^C", "").trim(), "");
    Ok(())
}

#[test]
fn an_error_has_whole_words_on_a_narrow_screen() -> Result<()> {
    let Some(lab) = Lab::open("the screen of an error")? else {
        return Ok(());
    };
    let mut command = Command::new(binary());
    lab.docker.aim(&mut command);
    command.env("NO_COLOR", "1");
    command.args(["-t", "container/a", "docker", "run", "--network", "host", PROBE]);
    let Some(screen) = Screen::open("the screen of an error", 40, &command)? else {
        return Ok(());
    };
    assert_eq!(screen.end()?, "125");
    assert_snapshot!(screen.shows(true)?, @r"
    mirrord: error: --network host gives the
             container this machine's own
             network, which no target can
             stand in for
    hint: leave --network out and publish
          ports with -p
    ");
    Ok(())
}

#[test]
fn without_a_terminal_there_are_plain_lines_json_or_none() -> Result<()> {
    let Some(lab) = Lab::open("progress without a terminal")? else {
        return Ok(());
    };
    let target = target(&lab)?;
    let said = |words: &[&str]| -> Result<String> {
        let mirrord = Mirrord::new(&lab, &target.target()).with(words.to_vec());
        let done = mirrord.finish(PROBE, &["true"])?;
        assert_eq!(done.code, 0, "{}", done.stderr);
        Ok(neutral(&done.stderr, &target))
    };
    let plain = said(&[])?;
    // A slow start names its steps as well.
    assert_snapshot!(plain.lines().last().unwrap_or_default(), @"mirrord: in the place of container/orders-and-parts, with a copy of its traffic (0.00 s)");
    assert!(!plain.contains('\u{1b}') && !plain.contains('\r'), "{plain:?}");
    assert_eq!(said(&["-q"])?, "");
    assert_eq!(said(&["--progress", "off"])?, "");
    let told = said(&["--progress", "json"])?;
    let mut told: Vec<String> = told
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).context(line.to_owned())?;
            Ok(format!("{} {}\n", value["event"], value["text"]))
        })
        .collect::<Result<_>>()?;
    told.retain(|line| !line.starts_with("\"log\"") && !line.contains("image made"));
    // Sidecar and agent start at the same time.
    told.sort();
    assert_snapshot!(told.concat(), @r#"
    "detail" "cleaned up (0.00 s)"
    "ready" "in the place of container/orders-and-parts, with a copy of its traffic (0.00 s)"
    "step" "agent started (0.00 s)"
    "step" "network ready (0.00 s)"
    "step" "sidecar started (0.00 s)"
    "step" "target found (0.00 s)"
    "step" "tunnel up (0.00 s)"
    "#);
    Ok(())
}
