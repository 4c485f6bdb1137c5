//! `--plane layer`: a container whose sidecar has no capability at all.

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::{DEBIAN, Lab, MUSL, PROBE};
use mirrord_tests::mirrord::Mirrord;
use mirrord_tests::scene::Scene;
use mirrord_tests::skip;
use serde_json::Value;

use crate::stage::answers_as;

const SERVER: &str = include_str!("../../apps/layer/server.py");
const DIAL: &str = include_str!("../../apps/layer/dial.py");
/// The image of busybox with musl's loader, where there is one.
const BUSYBOX: &str = "mirrord-test/musl";

fn mirrord<'lab>(scene: &Scene<'lab>) -> Mirrord<'lab> {
    scene.mirrord().with(["--plane", "layer"])
}

#[test]
fn a_container_steals_without_any_capability() -> Result<()> {
    let Some(lab) = Lab::open("--plane layer, steal")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let words = ["python3", "-c", SERVER, "blocking", "8000"];
    let session = mirrord(&scene).with(["--steal"]).start("app", DEBIAN, &words)?;
    answers_as(&scene, &session, "blocking")?;
    let sidecar = session.part("proxy")?;
    for container in [&sidecar, &session.name] {
        let added = lab.docker.inspect(container, "{{json .HostConfig.CapAdd}}")?;
        ensure!(matches!(added.as_str(), "null" | "[]"), "{container}: {added}");
        let privileged = lab.docker.inspect(container, "{{.HostConfig.Privileged}}")?;
        ensure!(privileged == "false", "{container}");
    }
    let mounts: Value =
        serde_json::from_str(&lab.docker.inspect(&session.name, "{{json .Mounts}}")?)?;
    for mount in mounts.as_array().into_iter().flatten() {
        ensure!(mount["RW"] == false, "the app can write to {mount}");
    }
    Ok(())
}

#[test]
fn a_container_of_musl_steals() -> Result<()> {
    let Some(lab) = Lab::open("--plane layer, musl")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let words = ["serve", "8000", "musl"];
    let session = mirrord(&scene).with(["--steal"]).start("app", MUSL, &words)?;
    answers_as(&scene, &session, "musl")
}

#[test]
fn busyboxs_httpd_serves_the_targets_port_80() -> Result<()> {
    let Some(lab) = Lab::open("--plane layer, busybox")? else {
        return Ok(());
    };
    if lab.docker.run(&["image", "inspect", BUSYBOX]).is_err() {
        skip::say("--plane layer, busybox", BUSYBOX);
        return Ok(());
    }
    let scene = Scene::open(&lab)?;
    let words =
        ["sh", "-c", "echo '{\"name\":\"busybox\"}' >/tmp/index.html; exec httpd -f -vv -h /tmp"];
    let session = mirrord(&scene).with(["--steal"]).start("app", BUSYBOX, &words)?;
    scene.until_answered_by("busybox", 80).with_context(|| session.stderr())?;
    let client = scene.client.address()?;
    ensure!(session.stderr().contains(&client), "its log names the client: {}", session.stderr());
    Ok(())
}

#[test]
fn a_container_calls_what_the_target_can_call() -> Result<()> {
    let Some(lab) = Lab::open("--plane layer, outgoing")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let peer = scene.client.address()?;
    let words = ["python3", "-c", DIAL, &format!("{peer}:7000"), &format!("{peer}:9")];
    let network = format!("container:{}", scene.target.name);
    let oracle = [&["run", "--rm", "--network", &network, DEBIAN], &words[..]].concat();
    let there = lab.docker.run(&oracle)?;
    let done = mirrord(&scene).with(["--no-incoming"]).finish(DEBIAN, &words)?;
    assert_eq!(done.stdout.trim(), there.trim(), "{}", done.stderr);
    Ok(())
}

#[test]
fn a_container_resolves_the_targets_names() -> Result<()> {
    let Some(lab) = Lab::open("--plane layer, names")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let address = scene.client.address()?;
    let lines = "getent ahostsv4 client | head -1 | cut -d' ' -f1; dig +short client; \
                 node -e \"require('dns').resolve4('client', (e, a) => console.log(e || a[0]))\"; hostname";
    let done = mirrord(&scene).with(["--no-incoming"]).finish(DEBIAN, &["sh", "-c", lines])?;
    let found: Vec<_> = done.stdout.lines().collect();
    let hostname = lab.docker.inspect(&scene.target.name, "{{.Config.Hostname}}")?;
    assert_eq!(found, [&address, &address, &address, &hostname], "{done:?}");
    Ok(())
}

#[test]
fn what_the_user_preloads_is_kept() -> Result<()> {
    let Some(lab) = Lab::open("--plane layer, LD_PRELOAD")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let own = mirrord_tests::toolbox::path("mark.so");
    let flags = ["-v", &format!("{own}:/own/mark.so:ro"), "-e", "LD_PRELOAD=/own/mark.so"];
    let words = ["sh", "-c", "echo \"$LD_PRELOAD\""];
    let done = mirrord(&scene).docker(flags).finish(DEBIAN, &words)?;
    ensure!(done.code == 0 && done.stderr.contains("marked"), "{done:?}");
    let text = done.stdout.trim();
    ensure!(text.contains("/own/mark.so") && text.contains("libmirrord_layer.so"), "{done:?}");
    Ok(())
}

#[test]
fn a_static_program_is_refused_by_name() -> Result<()> {
    let Some(lab) = Lab::open("--plane layer, a static program")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let done = mirrord(&scene).finish(PROBE, &["true"])?;
    ensure!(done.code != 0 && done.stdout.is_empty(), "{done:?}");
    for word in ["probe", "static", "--plane netns"] {
        ensure!(done.stderr.contains(word), "{word:?} is not said: {}", done.stderr);
    }
    Ok(())
}

#[test]
fn the_netns_plane_loads_no_library() -> Result<()> {
    let Some(lab) = Lab::open("--plane netns")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    for options in [&[][..], &["--plane", "netns"], &["--plane", "auto"]] {
        let run = scene.mirrord().with(options.to_vec());
        let done = run.finish(DEBIAN, &["sh", "-c", "echo \"[$LD_PRELOAD$MIRRORD_LAYER]\""])?;
        assert_eq!(done.stdout, "[]\n", "{options:?}: {done:?}");
    }
    Ok(())
}

#[test]
fn what_an_image_preloads_is_kept() -> Result<()> {
    let Some(lab) = Lab::open("--plane layer, LD_PRELOAD of an image")? else {
        return Ok(());
    };
    mirrord_tests::preload::is_kept(&lab)
}
