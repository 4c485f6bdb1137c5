//! docker's own client as the oracle: what it would ask of an engine for a whole line is what it
//! asks for the words that we leave it, with the flags that move put back.
//!
//! The client talks to a socket of ours, which writes its request down and refuses it.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bollard::models::ContainerCreateBody;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value};

use super::client::DOCKER;
use super::parse::{self, Line};
use super::rehome;
use super::table::{RUN, Takes};
use crate::engine::network;
use crate::failure::Failure;

/// How many lines are made up.
const LINES: u32 = 150;

/// docker's client, and what it asks for.
struct Client {
    folder: tempfile::TempDir,
    requests: Receiver<(String, Value)>,
    help: String,
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    /// The request to create a container: its query, its body.
    Asked(String, Value),
    /// A refusal: its words.
    Refused(String),
}

impl Client {
    /// `None`, loudly, where there is no client.
    fn open() -> Option<Self> {
        let Ok(help) = Command::new("docker").args(["run", "--help"]).output() else {
            eprintln!("SKIPPED: there is no docker client on this machine");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("sock")).expect("a socket");
        let (requests_tx, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &requests_tx);
            }
        });
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        Some(Self { folder, requests, help })
    }

    fn fate(&self, words: &[OsString]) -> Fate {
        let socket = self.folder.path().join("sock");
        let output = Command::new("docker")
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("FROM_OUTSIDE", "outside")
            .current_dir(&self.folder)
            .args(words)
            .output()
            .expect("docker runs");
        match self.requests.try_iter().last() {
            Some((query, body)) => Fate::Asked(query, pruned(body)),
            None => Fate::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// What becomes of it with us in front; whether the refusal is one of ours alone.
    fn fate_with_us(&self, words: &[OsString]) -> (Fate, bool) {
        let parsed = match parse::line(&DOCKER, words) {
            Ok(Line::Run(run)) => rehome::rehome(&run).map(|sorted| (run, sorted)),
            Ok(Line::Docker) => return (self.fate(words), false),
            Err(error) => return (Fate::Refused(said(error.failure(&DOCKER))), false),
        };
        let (run, (rehomed, flags)) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                let ours = error.is_ours();
                return (Fate::Refused(said(error.into())), ours);
            }
        };
        let mut left: Vec<OsString> = run.globals.iter().map(|flag| flag.word()).collect();
        left.extend(run.verb.iter().map(OsString::from));
        left.push("--network=container:sidecar".into());
        left.extend(flags);
        left.push("--".into());
        left.extend(run.rest);
        let fate = match self.fate(&left) {
            Fate::Asked(query, body) => Fate::Asked(query, joined(body, &rehomed)),
            refused => refused,
        };
        (fate, false)
    }

    fn has(&self, flag: &str) -> bool {
        self.help.contains(&format!("--{flag} ")) || self.help.contains(&format!("--{flag}\n"))
    }
}

fn said(failure: Failure) -> String {
    [vec![failure.sentence], failure.causes].concat().join(": ")
}

/// Reads one request, notes it if it is to create a container, and refuses it: in this order, since
/// the client may end as soon as it is refused.
fn answer(stream: UnixStream, requests_tx: &Sender<(String, Value)>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? <= 2 {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let created = head.split(' ').nth(1).and_then(|target| target.split_once("/containers/create"));
    if let Some((_, query)) = created {
        let body = serde_json::from_slice(&body).ok()?;
        requests_tx.send((query.to_owned(), body)).ok()?;
    }
    let (status, said) = match head.contains("/_ping") {
        true => ("200 OK\r\nApi-Version: 1.50\r\nOstype: linux", ""),
        false => ("400 Bad Request", "{\"message\":\"written down\"}"),
    };
    let length = said.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{said}"
    );
    reader.into_inner().write_all(response.as_bytes()).ok()
}

/// Without what says nothing.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map = map.into_iter().map(|(key, value)| {
                let kept = key == "ExposedPorts" || key == "EndpointsConfig";
                (key, if kept { value } else { pruned(value) })
            });
            Value::Object(map.filter(|(_, value)| !is_nothing(value)).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(pruned).collect()),
        other => other,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

/// The request for the words that were left, with the flags that moved.
fn joined(mut left: Value, rehomed: &rehome::Rehomed) -> Value {
    let mut body = ContainerCreateBody::default();
    // Its name goes with the container; the sidecar is only known by it as well.
    let rehomed = rehome::Rehomed { name: None, ..rehomed.clone() };
    network::apply(&rehomed, &[], false, &mut body);
    let moved = serde_json::to_value(body).expect("JSON");
    if let Some(left) = left.as_object_mut() {
        left.remove("NetworkingConfig");
    }
    merge(&mut left, moved);
    pruned(left)
}

fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                merge(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}

/// What docker's client and the engine's own client write differently and mean alike.
fn alike(fate: Fate) -> Fate {
    let Fate::Asked(query, mut body) = fate else { return fate };
    if let Some(endpoints) = body.pointer_mut("/NetworkingConfig/EndpointsConfig") {
        let networks: Map<String, Value> = std::mem::take(endpoints)
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, settings)| (name.clone(), pruned(settings.clone())))
            .collect();
        // docker says "default" of a container without a network of its own.
        let networks = networks
            .into_iter()
            .filter(|(name, settings)| name != "default" || !is_nothing(settings));
        let networks: Map<String, Value> = networks.collect();
        let alone = networks.len() == 1 && networks.values().all(is_nothing);
        *endpoints = if alone { Value::Null } else { Value::Object(networks) };
    }
    if let Some(ports) = body.get_mut("ExposedPorts").and_then(Value::as_object_mut) {
        ports.values_mut().for_each(|port| *port = Value::Null);
    }
    // docker's client keeps these in maps, which have no order.
    for list in ["/Env", "/HostConfig/Ulimits"] {
        if let Some(list) = body.pointer_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(Value::to_string);
        }
    }
    Fate::Asked(query, pruned(body))
}

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(|word| OsString::from(word.replace('~', " "))).collect()
}

/// The sentence of docker's refusal.
fn sentence(words: &str) -> &str {
    words.lines().next().unwrap_or_default().trim_start_matches("docker: ")
}

#[test]
fn lines_mean_to_docker_what_they_mean_without_us() {
    let Some(client) = Client::open() else { return };
    let lines = include_str!("client_lines.txt");
    for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words = words(line);
        let (ours, _) = client.fate_with_us(&words);
        assert_eq!(alike(ours), alike(client.fate(&words)), "{line}");
    }
}

#[test]
fn what_docker_refuses_is_refused_in_its_words() {
    let Some(client) = Client::open() else { return };
    let lines = include_str!("client_refusals.txt");
    let mut wrong = Vec::new();
    for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words = words(line);
        let (there, ours) = (client.fate(&words), client.fate_with_us(&words).0);
        match (&there, &ours) {
            (Fate::Refused(there), Fate::Refused(ours)) if ours.contains(sentence(there)) => {}
            _ => wrong.push(format!("{line}\n  docker: {there:?}\n  we: {ours:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Values of a flag, good and bad ones.
fn values_of(flag: &str) -> &'static [&'static str] {
    match flag {
        "publish" => {
            &["80", "8080:80", "127.0.0.1::53/udp", "7000-7002:80-82", "[::1]:1:1", "x", "1-2:3-5"]
        }
        "expose" => &["9", "9-11/udp", "0", "1:2", "x"],
        "network" | "net" => {
            &["shop", "bridge", "default", "name=shop,alias=a,ip=10.0.0.2", "name=b,x=y", ""]
        }
        "ip" => &["10.0.0.9", "", "no"],
        "ip6" => &["fd00::9", "no"],
        "mac-address" => &["02:42:ac:11:00:02", "zz"],
        "link" => &["db", "db:d", "a:b:c"],
        "add-host" => &["a:1.2.3.4", "a=[::1]", "a:host-gateway", "a", "a:b"],
        "dns" => &["1.1.1.1", "::1", "x"],
        "dns-search" => &["corp.test", ".", "-x"],
        "sysctl" => &["net.a=1", "kernel.msgmax=2", "net.b", "vm.x=1"],
        "env" => &["A=b", "A=", "FROM_OUTSIDE", "NOT_SET", "A=b=c,d e"],
        "memory" | "memory-swap" | "shm-size" | "memory-reservation" => &["64m", "1g", "x"],
        "cpus" => &["0.5", "2", "x"],
        "restart" => &["no", ""],
        "platform" => &["linux/amd64"],
        "pull" => &["missing", "never"],
        "attach" => &["stdout", "stderr", "nobody"],
        "ulimit" => &["nofile=10:20", "x"],
        "mount" => &["type=tmpfs,target=/x", "type=volume,target=/v", "x"],
        "volume" => &["/a:/b:ro", "v:/w", "/x"],
        "tmpfs" => &["/t", "/t:size=1m"],
        "label" => &["a=b", "a"],
        "log-driver" => &["json-file"],
        "log-opt" => &["max-size=1m"],
        "health-interval" | "health-timeout" => &["5s", "x"],
        "health-retries" | "pids-limit" | "cpu-shares" => &["3", "x"],
        "device" => &["/dev/null:/dev/n:r"],
        "security-opt" => &["no-new-privileges"],
        "stop-timeout" | "oom-score-adj" => &["5"],
        "ipc" => &["private", "host", "x"],
        "pid" | "uts" | "userns" => &["host", "x"],
        _ => &["word", "a=b", "-x", "--"],
    }
}

/// One flag in one of its spellings.
fn spelled(flag: usize, value: prop::sample::Index, spelling: u8) -> Vec<String> {
    let spec = &RUN[flag];
    if spec.takes == Takes::Nothing {
        return match (spec.short, spelling % 4) {
            (_, 0) => vec![format!("--{}", spec.long)],
            (Some(short), 1) => vec![format!("-{short}")],
            (_, 2) => vec![format!("--{}=false", spec.long)],
            (_, _) => vec![format!("--{}=T", spec.long)],
        };
    }
    let value = values_of(spec.long)[value.index(values_of(spec.long).len())];
    match (spec.short, spelling % 6) {
        (Some(short), 0) => vec![format!("-{short}"), value.to_owned()],
        (Some(short), 1) if !value.is_empty() => vec![format!("-{short}{value}")],
        (Some(short), 2) if !value.is_empty() => vec![format!("-{short}={value}")],
        (Some(short), 3) => vec![format!("-it{short}"), value.to_owned()],
        (_, 4) => vec![format!("--{}", spec.long), value.to_owned()],
        _ => vec![format!("--{}={value}", spec.long)],
    }
}

fn made_up(client: &Client) -> impl Strategy<Value = Vec<OsString>> + use<> {
    // Some read files or ask for more than a container.
    let others = ["help", "env-file", "label-file", "cidfile", "detach", "use-api-socket", "pull"];
    let known: Vec<usize> = (0..RUN.len())
        .filter(|at| client.has(RUN[*at].long) && !others.contains(&RUN[*at].long))
        .collect();
    let flag = (select(known), any::<prop::sample::Index>(), any::<u8>())
        .prop_map(|(flag, value, spelling)| spelled(flag, value, spelling));
    let tails: [&[&str]; 4] =
        [&["img"], &["img", "-p", "80", "--rm"], &["--", "img", "x"], &["img", "sh", "-c", "a b"]];
    (prop::collection::vec(flag, 0..7), select(tails.to_vec()), any::<bool>()).prop_map(
        |(flags, tail, container)| {
            let verb: &[&str] = if container { &["container", "run"] } else { &["run"] };
            let verb = verb.iter().map(|word| (*word).to_owned());
            let tail = tail.iter().map(|word| (*word).to_owned());
            verb.chain(flags.concat()).chain(tail).map(OsString::from).collect()
        },
    )
}

#[test]
fn made_up_lines_mean_to_docker_what_they_mean_without_us() {
    let Some(client) = Client::open() else { return };
    let config = Config { cases: LINES, failure_persistence: None, ..Config::default() };
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, seed);
    let same = Cell::new(0);
    let result = runner.run(&made_up(&client), |words| {
        let (ours, only_ours) = client.fate_with_us(&words);
        let there = client.fate(&words);
        match (&there, &ours) {
            (Fate::Refused(_), Fate::Refused(_)) => {}
            (Fate::Asked(..), Fate::Refused(_)) if only_ours => {}
            _ => {
                prop_assert_eq!(alike(ours), alike(there), "{:?}", words);
                same.set(same.get() + 1);
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(same.get() > LINES / 5, "only {} lines were good ones", same.get());
}
