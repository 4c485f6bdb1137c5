//! What the app calls: everything in the cluster, by every kind of Service.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use mirrord_tests::cluster::manifest::{self, SERVERS, probe, spec, workload};
use mirrord_tests::cluster::{Cluster, Scene};
use mirrord_tests::lab::DEBIAN;
use serde_json::json;

#[test]
fn three_services_are_called_at_once_from_the_targets_own_address() -> Result<()> {
    let Some(cluster) = Cluster::open("three services")? else {
        return Ok(());
    };
    let names = ["orders", "stock", "users"];
    let mut objects = Vec::new();
    for name in names {
        objects.push(workload("Deployment", name, 1, spec(&[probe("web", SERVERS)])));
        objects.push(manifest::service(name, name));
    }
    let scene = Scene::with(&cluster, &objects)?;
    for name in names {
        scene.space.ready(name, 1)?;
        scene.until_answered_by(name, &format!("{name}:80"))?;
    }
    let target = scene.space.pod("client")?;
    let mut session = scene.mirrord("pod/client").probe("app")?;
    let asked = names
        .iter()
        .map(|name| session.app().send(&format!("ask {name}:80 http /")))
        .collect::<Result<Vec<_>>>()?;
    for (name, id) in names.iter().zip(asked) {
        let answer = session.app().answer(&id)?;
        ensure!(answer["ok"] == true, "{name}: {answer}");
        let seen = &answer["answer"];
        ensure!(seen["name"].as_str().is_some_and(|who| who.starts_with(name)), "{seen}");
        let peer = seen["peer"].as_str().unwrap_or("");
        ensure!(peer.starts_with(&format!("{}:", target.address)), "the target's address: {seen}");
    }
    let answer = session.app().must("udp stock:7001 hello")?;
    ensure!(answer["answer"]["text"] == "hello", "{answer}");
    let pushed = session.app().must("upload users:7000 10000000")?;
    ensure!(pushed["intact"] == true && pushed["bytes"] == 10_000_000, "{pushed}");
    let refused = session.app().ask("ask orders:81 whoami")?;
    ensure!(refused["ok"] == false, "a port that the Service has not: {refused}");
    assert_eq!(session.end()?, 0);
    scene.unharmed(&target)
}

#[test]
fn headless_and_external_names_and_the_pods_of_a_statefulset_are_reached() -> Result<()> {
    let Some(cluster) = Cluster::open("special Services")? else {
        return Ok(());
    };
    let objects = [
        workload("StatefulSet", "db", 2, spec(&[probe("web", SERVERS)])),
        manifest::headless("db", "db"),
    ];
    let scene = Scene::with(&cluster, &objects)?;
    scene.space.ready("db", 2)?;
    let other = format!("db.{}.svc.cluster.local", scene.space.name);
    scene.space.apply(&[json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "elsewhere" },
        "spec": { "type": "ExternalName", "externalName": other },
    })])?;
    for host in ["db-1.db", "elsewhere"] {
        scene.until_answered_by("db-", &format!("{host}:80"))?;
    }
    let mut session = scene.mirrord("pod/client").probe("app")?;
    for (host, who) in [
        ("db-0.db", "db-0"),
        ("db-1.db", "db-1"),
        (&format!("db-1.db.{}.svc", scene.space.name), "db-1"),
        ("db", "db-"),
        ("elsewhere", "db-"),
    ] {
        let answer = session.app().must(&format!("ask {host}:80 http /"))?;
        let name = answer["answer"]["name"].as_str().unwrap_or("");
        ensure!(name.starts_with(who), "{host}: {answer}");
    }
    let all = session.app().must("resolve db")?;
    assert_eq!(all, at_the_target(&scene, "resolve db", &all)?);
    assert_eq!(session.end()?, 0);
    Ok(())
}

/// The oracle, with the id of the answer that it is compared with.
fn at_the_target(
    scene: &Scene<'_>,
    command: &str,
    like: &serde_json::Value,
) -> Result<serde_json::Value> {
    let mut answer = scene.client().must(command)?;
    answer["id"] = like["id"].clone();
    Ok(answer)
}

#[test]
fn the_api_server_answers_the_app_as_the_targets_service_account() -> Result<()> {
    let Some(cluster) = Cluster::open("the API server")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let token = scene.space.kubectl.run(&["create", "token", "default"])?;
    let script = "curl -sS -k -m 10 -H \"Authorization: Bearer $TOKEN\" \
                  https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews \
                  -H 'Content-Type: application/json' \
                  -d '{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"SelfSubjectReview\"}'; \
                  curl -sS -k -m 10 -o /dev/null -w '%{http_code}' \
                  https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version";
    let mirrord = scene.mirrord("deployment/web").docker(["-e", "TOKEN"]).env("TOKEN", &token);
    let done = mirrord.finish(DEBIAN, &["sh", "-c", script])?;
    let who = format!("system:serviceaccount:{}:default", scene.space.name);
    ensure!(done.stdout.contains(&who), "{done:?}");
    ensure!(done.stdout.trim().ends_with("200"), "{done:?}");
    Ok(())
}

#[test]
fn nothing_of_the_kubeconfig_enters_a_container() -> Result<()> {
    let Some(cluster) = Cluster::open("the kubeconfig's secrets")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let config = scene.space.kubectl.config().clone();
    let text = std::fs::read_to_string(Path::new(&config))?;
    let secrets: Vec<&str> = text
        .lines()
        .filter_map(|line| {
            line.trim().split_once("-key-data: ").or(line.trim().split_once("token: "))
        })
        .map(|(_, secret)| secret)
        .collect();
    ensure!(!secrets.is_empty(), "this test needs a kubeconfig with a key or a token in it");
    let session = scene.mirrord("deployment/web").probe("app")?;
    let own = session.app().must("env")?.to_string();
    let docker = &cluster.lab.docker;
    let inspected = docker.run(&["inspect", &session.name, &session.part("proxy")?])?;
    for secret in secrets {
        ensure!(!own.contains(secret) && !inspected.contains(secret), "a key of the kubeconfig");
    }
    let path = config.to_string_lossy().into_owned();
    ensure!(!own.contains(&path), "KUBECONFIG in the app's environment");
    drop(session);
    scene.pod("web").context("the target").map(drop)
}
