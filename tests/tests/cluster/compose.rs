//! The example project of compose, in its two ways with a cluster.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use mirrord_tests::background::finish;
use mirrord_tests::cluster::manifest::{self, probe, service, spec, workload};
use mirrord_tests::cluster::{Cluster, Scene};
use mirrord_tests::compose::Project;
use mirrord_tests::terminal::Terminal;
use mirrord_tests::{skip, wait};
use serde_json::json;

const SERVES: &str = "serve http 0.0.0.0:80 original";

fn stage(cluster: &Cluster) -> Result<Scene<'_>> {
    let region = json!({ "env": [{ "name": "REGION", "value": "north" }] });
    let orders = manifest::with(probe("orders", SERVES), region);
    let scene = Scene::with(
        cluster,
        &[
            workload("Deployment", "orders", 1, spec(&[orders])),
            service("orders", "orders"),
            workload("Deployment", "web", 1, spec(&[probe("web", SERVES)])),
            service("web", "web"),
        ],
    )?;
    scene.space.ready("orders", 1)?;
    scene.space.ready("web", 1)?;
    Ok(scene)
}

/// The example, with a kubeconfig whose namespace is the scene's.
fn example<'c>(scene: &Scene<'c>) -> Result<Option<Project<'c>>> {
    let Some(mut project) = Project::new(&scene.cluster.lab, "shop", "")? else { return Ok(None) };
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/examples");
    let copied = finish(
        Command::new("cp").args(["-r", "--"]).arg(examples.join(".")).arg(project.path(".")),
    )?;
    ensure!(copied.code == 0, "{copied:?}");
    let config = project.path("kubeconfig");
    std::fs::copy(scene.space.kubectl.config(), &config)?;
    let place = format!("--namespace={}", scene.space.name);
    let words = ["config", "set-context", "--current", &place];
    let set = Command::new("kubectl").args(words).env("KUBECONFIG", &config).output()?;
    ensure!(set.status.success(), "{set:?}");
    project.set("KUBECONFIG", &config.to_string_lossy());
    let port = (30000 + std::process::id() % 10000).to_string();
    project.set("WEB_PORT", &port);
    Ok(Some(project))
}

/// What a client of the cluster gets from one of its services.
fn asked(scene: &Scene<'_>, service: &str) -> String {
    let answer = scene.client().must(&format!("ask {service}:80 http /raw"));
    answer.map(|answer| answer.to_string()).unwrap_or_default()
}

#[test]
fn the_shop_stands_in_the_places_of_deployments() -> Result<()> {
    let Some(cluster) = Cluster::open("the example project in a cluster")? else { return Ok(()) };
    if cluster.lab.docker.run(&["image", "inspect", "mirrord-apps/postgres"]).is_err() {
        return skip::missing(
            "the example project",
            "mirrord-apps/postgres: tests/images postgres",
        );
    }
    let scene = stage(&cluster)?;
    let Some(project) = example(&scene)? else { return Ok(()) };
    let until = |service: &str, part: &str| {
        wait::until_true(&format!("{service} to say {part}"), || {
            Ok(asked(&scene, service).contains(part))
        })
    };
    until("orders", "original")?;

    project.must(&["--profile", "one", "up", "-d"])?;
    // A client of the cluster is answered by the compose service, from its database and with the
    // target's variable; the other Deployment is left alone.
    until("orders", "bread")?;
    until("orders", "north")?;
    ensure!(asked(&scene, "web").contains("original"));
    let via = project.fetch("orders-in-cluster", "http://localhost/via/web/")?;
    ensure!(via.contains("original"), "a service of the cluster: {via}");
    project.must(&["--profile", "one", "down", "-t", "1"])?;
    until("orders", "original")?;

    let command = project.command("docker", &["compose", "--profile", "all", "up"]);
    let mut terminal = Terminal::start(&command)?;
    until("web", "page of")?;
    let follow = ["2", "docker", "compose", "--profile", "all", "logs", "-f", "web-in-cluster"];
    let followed = finish(&project.command("timeout", &follow))?;
    ensure!(followed.stdout.contains("web-in-cluster"), "{followed:?}");
    terminal.type_in("\x03")?;
    ensure!(terminal.end()? == 130);
    until("web", "original")?;
    project.must(&["--profile", "all", "down", "-v", "-t", "1"])?;
    until("orders", "original")?;
    project.until_nothing_is_left()
}
