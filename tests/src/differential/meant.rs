//! What may differ, and why.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::outcome::Outcome;
use super::words::Row;

/// Differs from one run of docker's to the next.
const EACH_TIME: &[&str] = &[
    "/Id",
    "/Created",
    "/State/Pid",
    "/State/StartedAt",
    "/State/FinishedAt",
    "/State/Health",
    "/ResolvConfPath",
    "/HostnamePath",
    "/HostsPath",
    "/LogPath",
    "/ExecIDs",
    "/GraphDriver",
    "/Storage",
];

/// Differs with us in front: what, and why.
const MEANT: &[(&str, &str)] = &[
    ("/HostConfig/NetworkMode", "the container joins the sidecar's network"),
    ("/NetworkSettings", "the network is the sidecar's"),
    ("/Config/Hostname", "the host name is the target's, or the sidecar's if one was given"),
    ("/Config/Domainname", "it goes with the host name"),
    ("/Config/MacAddress", "the network is the sidecar's"),
    ("/Config/ExposedPorts", "ports are the sidecar's"),
    ("/HostConfig/PortBindings", "ports are the sidecar's"),
    ("/HostConfig/PublishAllPorts", "ports are the sidecar's"),
    ("/HostConfig/Dns", "resolv.conf is the sidecar's"),
    ("/HostConfig/DnsOptions", "resolv.conf is the sidecar's"),
    ("/HostConfig/DnsSearch", "resolv.conf is the sidecar's"),
    ("/HostConfig/ExtraHosts", "/etc/hosts is the sidecar's"),
    ("/HostConfig/Links", "the network is the sidecar's"),
    ("/HostConfig/Sysctls", "those of the network are the sidecar's"),
    ("/Config/Labels/mirrord.session", "it says whose the container is"),
];

/// Whom docker's own name server asks of a sidecar (the proxy, see ARCHITECTURE.md).
const DNS_VIA_PROXY: &str = "192.0.2.53";

/// What the owner of the network has in the app's place: of a running pair they are compared.
const MOVED: &[&str] = &[
    "/Config/Domainname",
    "/Config/MacAddress",
    "/Config/ExposedPorts",
    "/HostConfig/PortBindings",
    "/HostConfig/PublishAllPorts",
    "/HostConfig/Dns",
    "/HostConfig/DnsOptions",
    "/HostConfig/DnsSearch",
    "/HostConfig/ExtraHosts",
    "/HostConfig/Links",
];

/// What differs between a line alone and the same with us in front.
pub fn differences(there: &Outcome, here: &Outcome, row: &Row, variable: &str) -> Vec<String> {
    let mut told = Vec::new();
    let mut differ = |what: &str, there: &str, here: &str| {
        if there != here {
            told.push(format!("{what}: docker {there:?}, we {here:?}"));
        }
    };
    let code = row.code.clone().unwrap_or_else(|| there.code.to_string());
    differ("code", &code, &here.code.to_string());
    let stdout = here.stdout.replace(&format!("{variable}\n"), "");
    differ("stdout", &anonymous(&there.stdout), &anonymous(&stdout));
    match there.code {
        _ if row.better.is_some() => told.extend(missing(&there.stderr, &here.stderr, row)),
        125 => told.extend(missing(&there.stderr, &here.stderr, row)),
        _ => differ("stderr", &plain(&there.stderr), &plain(&here.stderr)),
    }
    match (&there.container, &here.container) {
        (Some(there), Some(it)) => {
            compare("", &cleared(there, variable), &cleared(it, variable), &mut told);
            if let Some(owner) = &here.owner {
                compare("owner ", &owned(there), &owned(owner), &mut told);
            }
        }
        // What never ran could not be started later either, without its session.
        (Some(it), None) if it["State"]["Status"] == "created" => {}
        (Some(_), None) => told.push("docker leaves a container, we do not".to_owned()),
        (None, Some(_)) => told.push("we leave a container, docker does not".to_owned()),
        (None, None) => {}
    }
    told
}

/// Without the lines that are ours, and what is random in docker's.
fn plain(stderr: &str) -> String {
    let ours = |line: &&str| line.starts_with("mirrord: ") || line.starts_with("warning: ");
    stderr.lines().filter(|line| !ours(line)).map(anonymous).collect::<Vec<_>>().join("\n")
}

/// Ids of 12 and of 64 digits are all the same.
fn anonymous(text: &str) -> String {
    let is_id = |word: &str| {
        [12, 64].contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let (mut out, mut word) = (String::new(), String::new());
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        out += if is_id(&word) { "ID" } else { &word };
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

/// Docker's sentence, if it is not among our words; or the better one that was promised.
fn missing(there: &str, here: &str, row: &Row) -> Option<String> {
    let here = anonymous(here).replace('\n', " ");
    let of_docker = || {
        let sentence = there
            .lines()
            .find(|line| !line.trim().is_empty() && !line.starts_with("Unable to find image"));
        anonymous(sentence.unwrap_or_default().trim_start_matches("docker: "))
    };
    let sentence = row.better.clone().unwrap_or_else(of_docker);
    let part = sentence.trim_start_matches("Error response from daemon: ").trim();
    (!here.contains(part)).then(|| format!("{part:?} is not in {here:?}"))
}

/// Without what differs each time, what is meant, and the target's variable.
fn cleared(container: &Value, variable: &str) -> Value {
    let mut container = container.clone();
    for pointer in EACH_TIME.iter().chain(MEANT.iter().map(|(pointer, _)| pointer)) {
        remove(&mut container, pointer);
    }
    if let Some(env) = container.pointer_mut("/Config/Env").and_then(Value::as_array_mut) {
        env.retain(|it| it != variable);
    }
    // docker's client keeps these in maps, which have no order.
    for list in ["/Config/Env", "/HostConfig/Ulimits"] {
        if let Some(list) = container.pointer_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(Value::to_string);
        }
    }
    if let Some(mounts) = container.get_mut("Mounts").and_then(Value::as_array_mut) {
        for mount in mounts.iter_mut().filter(|mount| mount["Type"] == "volume") {
            for key in ["Name", "Source"] {
                mount[key] = anonymous(mount[key].as_str().unwrap_or_default()).into();
            }
        }
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    container
}

/// What belongs to the owner of the network; its name server is the proxy where docker's own asks.
fn owned(container: &Value) -> Value {
    let mut owned = Map::new();
    for pointer in MOVED {
        let value = container.pointer(pointer).cloned().unwrap_or_default();
        let ours = value == serde_json::json!([DNS_VIA_PROXY]);
        owned.insert((*pointer).to_owned(), if ours { Value::Null } else { value });
    }
    let networks = container.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    for (name, network) in networks.into_iter().flatten() {
        for key in ["IPAMConfig", "Links", "DriverOpts", "GwPriority"] {
            owned.insert(format!("{name} {key}"), network[key].clone());
        }
    }
    Value::Object(owned)
}

fn remove(value: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    if let Some(parent) = value.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.remove(key);
    }
}

/// Nothing is written in several ways.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(on) => !on,
        Value::Number(_) => false,
    }
}

fn compare(at: &str, there: &Value, here: &Value, told: &mut Vec<String>) {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let of = |map: &Map<_, _>| map.get(key).cloned().unwrap_or_default();
                compare(&format!("{at}/{key}"), &of(a), &of(b), told);
            }
        }
        _ if there == here || (is_nothing(there) && is_nothing(here)) => {}
        _ => told.push(format!("{at}: docker {there}, we {here}")),
    }
}
