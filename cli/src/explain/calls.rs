//! What a session asks of the engine and of the cluster, in order. A test holds this list against
//! what a session really asks; what is asked in some cases alone has an "if" in front of its reason.

use serde::Serialize;

use super::ID;
use crate::cluster::settings::AgentMode;
use crate::docker_run::Rehomed;
use crate::session::plan::HOST_GATEWAY;
use crate::session::plane::PlaneArg;
use crate::settings::Settings;
use crate::target::TargetName;

/// A request.
#[derive(Debug, Serialize)]
pub struct Call {
    /// Whom, how and what, as its API names it.
    pub call: String,
    /// What for.
    pub why: &'static str,
}

/// A session's requests.
#[derive(Debug, Default, Serialize)]
pub struct Calls {
    /// Until the app may start.
    pub before: Vec<Call>,
    /// While it runs, and when it has ended.
    pub after: Vec<Call>,
}

fn call(call: impl Into<String>, why: &'static str) -> Call {
    Call { call: call.into(), why }
}

/// Those of a session with a container as its app.
pub fn of_container(settings: &Settings, rehomed: &Rehomed, image: &str) -> Calls {
    let mut calls = Calls::default();
    let layer = settings.loads_layer();
    find_target(settings, &mut calls);
    if settings.container().is_none() {
        calls.before.push(call("GET /version", "the engine answers"));
    }
    if rehomed.hosts.iter().any(|(_, address)| address == HOST_GATEWAY) {
        calls.before.push(call("GET /networks/bridge", "the address behind host-gateway"));
    }
    if rehomed.publish_all {
        calls.before.push(call(format!("GET /images/{image}/json"), "the ports that it exposes"));
    }
    for (name, _) in rehomed.hosts_by_link() {
        calls.before.push(call(format!("GET /containers/{name}/json"), "its address, for --link"));
    }
    if layer {
        look_into(image, &mut calls);
        calls.before.push(call("POST /volumes/create", "it brings the preload library"));
    }
    let why = match settings.plane == PlaneArg::Layer {
        false => "the owner of the network, with the flags that move",
        true => "the owner of the network, with the flags that move; no capability",
    };
    calls.before.push(create("proxy", why));
    calls.before.push(call("POST /images/load", "mirrord's own image, if it is not there yet"));
    start("proxy", &mut calls);
    add_agents(settings, &mut calls);
    let lasts = "if it lasts a second: what a session left that was killed";
    calls.after.push(call("GET /containers/json", lasts));
    calls.after.push(call("GET /volumes", lasts));
    calls.after.push(call("GET /events", "if the app is removed at its end: that it is"));
    let kept = "if it is kept, or has a volume of the session's: what is the session's";
    calls.after.push(call("GET /containers/json", kept));
    let waits = format!("POST /containers/mirrord-proxy-{ID}/wait");
    calls.after.push(call(waits, "the sidecar has ended by itself"));
    if layer {
        calls.after.push(call("GET /volumes", "what is the session's"));
        let volume = format!("DELETE /volumes/mirrord-layer-{ID}");
        calls.after.push(call(volume, "it brought the preload library"));
    }
    calls
}

/// Those of a session with a process of this machine as its app.
pub fn of_process(settings: &Settings) -> Calls {
    let mut calls = Calls::default();
    find_target(settings, &mut calls);
    if settings.container().is_some() {
        calls.before.push(call("POST /images/load", "mirrord's own image, if it is not there yet"));
    }
    add_agents(settings, &mut calls);
    calls
}

fn find_target(settings: &Settings, calls: &mut Calls) {
    let (text, why) = match &settings.target {
        Some(TargetName::Container(name)) => {
            (format!("GET /containers/{name}/json"), "the target: whether it runs, and its names")
        }
        Some(TargetName::Cluster(target)) => {
            calls.before.push(rights());
            (format!("cluster: GET {target}"), "the target and its pods")
        }
        None => {
            calls.before.push(rights());
            ("cluster: GET pods".to_owned(), "a node, and an image that it has")
        }
    };
    calls.before.push(call(text, why));
}

fn rights() -> Call {
    let reviews = "cluster: POST selfsubjectaccessreviews";
    call(reviews, "whether all that follows is allowed")
}

/// Looks whether what the image runs can load a library.
fn look_into(image: &str, calls: &mut Calls) {
    calls.before.extend([
        call(format!("GET /images/{image}/json"), "what it runs"),
        call(format!("POST /containers/create?name=mirrord-look-{ID}"), "never started: to look"),
        call(format!("GET /containers/mirrord-look-{ID}/archive"), "whether that loads libraries"),
        call(format!("DELETE /containers/mirrord-look-{ID}"), "looked"),
    ]);
}

fn create(role: &str, why: &'static str) -> Call {
    call(format!("POST /containers/create?name=mirrord-{role}-{ID}"), why)
}

fn start(role: &str, calls: &mut Calls) {
    let at = format!("POST /containers/mirrord-{role}-{ID}");
    calls.before.push(call(format!("{at}/attach"), "its configuration, and what it says"));
    calls.before.push(call(format!("{at}/start"), "it runs"));
}

fn add_agents(settings: &Settings, calls: &mut Calls) {
    if let Some(target) = settings.container() {
        let unknown = "if the target's files do not tell: whether the engine remaps users";
        calls.before.push(call("GET /info", unknown));
        calls.before.push(create("agent", "in the target's network and pid namespaces"));
        start("agent", calls);
        let waits = format!("POST /containers/{target}/wait");
        calls.after.push(call(waits, "the session ends when the target does"));
        let waits = format!("POST /containers/mirrord-agent-{ID}/wait");
        calls.after.push(call(waits, "the agent has left by itself"));
        let delete = format!("DELETE /containers/mirrord-agent-{ID}");
        calls.after.push(call(delete, "if it has not"));
        return;
    }
    let forward = call("cluster: POST pods/portforward", "the program, then the tunnel");
    if settings.cluster.agent.mode == Some(AgentMode::Ephemeral) {
        let patch = "cluster: PATCH pods/ephemeralcontainers";
        calls.before.extend([call(patch, "an agent in the target's pod"), forward]);
        return;
    }
    calls.before.extend([
        call(format!("cluster: POST jobs mirrord-agent-{ID}"), "an agent on the target's node"),
        call(format!("cluster: POST configmaps mirrord-agent-{ID}"), "what its pod begins with"),
        call("cluster: GET pods", "until it runs"),
        forward,
    ]);
    let delete = format!("cluster: DELETE jobs mirrord-agent-{ID}");
    calls.after.push(call(delete, "at its end, with all that belongs to it"));
}
