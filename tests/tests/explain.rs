//! `--explain` says what a session would do, and it does just that.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::{Lab, PROBE};
use mirrord_tests::mirrord::binary;
use serde_json::Value;

fn explain(words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary());
    command.args(words).env_remove("DOCKER_HOST").env("DOCKER_CONTEXT", "default");
    command.output().context("run mirrord")
}

fn json(words: &[&str]) -> Result<Value> {
    let output = explain(words)?;
    ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn place<'a>(plan: &'a Value, flag: &str) -> &'a Value {
    let flags = plan["flags"].as_array().into_iter().flatten();
    flags.into_iter().find(|it| it["flag"] == flag).unwrap_or(&Value::Null)
}

#[test]
fn every_flag_has_its_place_and_a_reason() -> Result<()> {
    let plan = json(&[
        "--explain",
        "-o",
        "json",
        "-t",
        "container/orders",
        "docker",
        "-D",
        "run",
        "--rm",
        "-it",
        "-p8080:80",
        "-eTOKEN=secret",
        "--sysctl",
        "net.core.somaxconn=9",
        "--sysctl",
        "kernel.msgmax=9",
        "img",
        "sh",
        "-c",
        "a b",
    ])?;
    for (flag, expected) in [
        ("--debug", "passes"),
        ("--rm", "passes"),
        ("--publish=8080:80", "moves"),
        ("--env=TOKEN=…", "handled"),
        ("--sysctl=net.core.somaxconn=9", "moves"),
        ("--sysctl=kernel.msgmax=9", "handled"),
    ] {
        let at = place(&plan, flag);
        assert_eq!(at["place"], expected, "{flag}: {plan}");
        assert!(at["why"].as_str().is_some_and(|why| why.len() > 8), "{flag}: {at}");
    }
    let command: Vec<&str> =
        plan["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(command[..3], ["docker", "--debug", "run"]);
    assert_eq!(command[command.len() - 4..], ["img", "sh", "-c", "a b"]);
    assert!(command.contains(&"--network=container:mirrord-proxy-ID"), "{command:?}");
    assert!(!plan.to_string().contains("secret"), "{plan}");
    Ok(())
}

#[test]
fn a_refusal_is_explained_with_its_exit_code() -> Result<()> {
    let words = ["--explain", "-t", "container/a", "docker", "run", "--network", "host", "img"];
    let output = explain(&words)?;
    assert_eq!(output.status.code(), Some(125));
    let (text, told) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(text.contains("--network=host  is refused"), "{text}");
    assert!(told.contains("error: --network host") && told.contains("hint: "), "{told}");
    let output = explain(&["--explain", "docker", "run", "--nonsense", "img"])?;
    assert_eq!(output.status.code(), Some(125));
    let output = explain(&["--explain", "exec", "-t", "nonsense", "--", "true"])?;
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}

#[test]
fn all_three_forms_are_explained_on_standard_output() -> Result<()> {
    let at = ["--explain", "-t", "container/orders"];
    let forms: [(&[&str], &str); 3] = [
        (&["docker", "run", "--rm", "img"], "docker run "),
        (&["container", "--", "docker", "run", "--rm", "img"], "docker run "),
        (&["exec", "--", "node", "server.js"], "node server.js"),
    ];
    for (form, part) in forms {
        let output = explain(&[&at[..], form].concat())?;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout)?;
        assert!(text.contains(part) && text.contains("in the place of container/orders"), "{text}");
        assert!(text.contains("GET /containers/orders/json"), "{text}");
        assert_eq!(String::from_utf8(output.stderr)?, "");
    }
    Ok(())
}

/// A socket that hands everything on to an engine, and writes down what mirrord asks.
struct Tap {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tap {
    fn open() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = UnixListener::bind(folder.path().join("sock"))?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(engine) = UnixStream::connect("/var/run/docker.sock") else { continue };
                let (Ok(from), Ok(to)) = (engine.try_clone(), client.try_clone()) else { continue };
                let sink = Arc::clone(&sink);
                thread::spawn(move || copy(from, to, |_| ()));
                thread::spawn(move || {
                    copy(client, engine, |chunk| {
                        let line = String::from_utf8_lossy(chunk);
                        if !line.contains("User-Agent: Docker-Client") {
                            sink.lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .extend(request(&line));
                        }
                    });
                });
            }
        });
        Ok(Self { folder, asked })
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        look(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Method and path of a request that begins here, without the version and but for a name the query.
fn request(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split(' ');
    let method = words.next().filter(|word| ["GET", "POST", "DELETE"].contains(word))?;
    let target = words.next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path
        .strip_prefix("/v1.")
        .and_then(|path| path.find('/').map(|at| &path[at..]))
        .unwrap_or(path);
    let name = query.split('&').find(|pair| pair.starts_with("name="));
    Some(name.map_or(format!("{method} {path}"), |name| format!("{method} {path}?{name}")))
}

/// The same with one word for every container, for a session's is known by its id.
fn shape(call: &str) -> String {
    let mut parts: Vec<&str> = call.split('/').collect();
    if parts.len() > 2
        && parts[1] == "containers"
        && !parts[2].starts_with("create")
        && parts[2] != "json"
    {
        parts[2] = "*";
    }
    if parts.len() > 2 && parts[1] == "volumes" {
        parts[2] = "*";
    }
    let shape = parts.join("/");
    match shape.split_once("?name=mirrord-") {
        Some((head, name)) => format!("{head} {}", name.split('-').next().unwrap_or_default()),
        None => shape,
    }
}

fn counted(calls: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        // How often one has to look depends on the image's links.
        let looks = call.ends_with("/archive");
        let count: &mut usize = counts.entry(call).or_default();
        *count = if looks { 1 } else { *count + 1 };
    }
    counts
}

#[test]
fn a_session_asks_the_engine_for_what_was_explained() -> Result<()> {
    let Some(lab) = Lab::open("the plan's calls")? else {
        return Ok(());
    };
    let target = lab.container("target").probe()?;
    let name = lab.name("app");
    lab.adopt(&name);
    for plane in ["netns", "layer"] {
        let word = target.target();
        let at = ["-t", &word, "--plane", plane];
        let image = if plane == "layer" { mirrord_tests::lab::DEBIAN } else { PROBE };
        let run = [
            "docker",
            "run",
            "--rm",
            "--name",
            &name,
            "--add-host",
            "up:host-gateway",
            "-P",
            "-i",
            image,
        ];
        // The image is there from now on.
        lab.docker.run(&["image", "inspect", image])?;
        for round in 0..2 {
            let tap = Tap::open()?;
            let output = Command::new(binary())
                .args([&at[..], &run[..]].concat())
                .env("DOCKER_HOST", format!("unix://{}/sock", tap.folder.path().display()))
                .stdin(std::process::Stdio::null())
                .output()?;
            ensure!(!String::from_utf8_lossy(&output.stderr).contains("error: "), "{output:?}");
            if round == 0 {
                continue;
            }
            let plan = json(&[&["--explain", "-o", "json"][..], &at[..], &run[..]].concat())?;
            let calls = ["before", "after"]
                .into_iter()
                .flat_map(|part| plan["calls"][part].as_array().into_iter().flatten());
            let explained: Vec<(String, bool)> = calls
                .filter_map(|call| Some((call["call"].as_str()?, call["why"].as_str()?)))
                .filter(|(call, _)| *call != "POST /images/load")
                .map(|(call, why)| (shape(call), why.starts_with("if ")))
                .collect();
            let always =
                explained.iter().filter(|(_, sometimes)| !sometimes).map(|(call, _)| call.clone());
            let (always, at_most) =
                (counted(always), counted(explained.iter().map(|(call, _)| call.clone())));
            let asked = tap.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let counts = counted(asked.iter().map(|call| shape(call)));
            let of = |counts: &BTreeMap<String, usize>, call: &String| {
                counts.get(call).copied().unwrap_or_default()
            };
            for call in counts.keys().chain(always.keys()) {
                let range = of(&always, call)..=of(&at_most, call);
                ensure!(range.contains(&of(&counts, call)), "{plane}: {call} {range:?}: {asked:?}");
            }
        }
    }
    Ok(())
}
