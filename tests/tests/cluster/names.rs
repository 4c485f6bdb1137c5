//! Names in every form that a pod may use, each as the target itself has it answered.

use anyhow::{Result, ensure};
use mirrord_tests::cluster::manifest::{self, SERVERS, debian, pod, probe, spec, workload};
use mirrord_tests::cluster::{Cluster, Scene};
use mirrord_tests::lab::{DEBIAN, GO, MUSL};
use mirrord_tests::wait;
use serde_json::json;

/// The same shell at the target and in its place; sorted, since servers shuffle.
const SCRIPT: &str = r#"
for name in web web.$NS web.$NS.svc web.$NS.svc.cluster.local web.$NS.svc.cluster.local. \
            db-0.db db-0.db.$NS.svc.cluster.local kubernetes.default elsewhere nothing.$NS; do
  echo "A $name: $(dig +search +short A $name | sort | tr '\n' ' ')"
  echo "status $name: $(dig +search A $name | grep -o 'status: [A-Z]*')"
  echo "hosts $name: $(getent ahostsv4 $name | cut -d' ' -f1 | sort -u | tr '\n' ' ')"
done
for name in _http._tcp.web.$NS.svc.cluster.local _tcp._tcp.db.$NS.svc.cluster.local; do
  echo "SRV $name: $(dig +short SRV $name | sort | tr '\n' ' ')"
done
echo "PTR: $(dig +short -x $(getent ahostsv4 web | head -n 1 | cut -d' ' -f1))"
echo "TCP: $(dig +tcp +short web.$NS.svc.cluster.local)"
cat /etc/resolv.conf | grep -v '^#' | sort
"#;

#[test]
fn every_form_of_every_name_is_answered_as_at_the_target() -> Result<()> {
    let Some(cluster) = Cluster::open("names")? else {
        return Ok(());
    };
    let scene = Scene::empty(&cluster)?;
    scene.space.apply(&[
        workload("Deployment", "web", 1, spec(&[probe("web", SERVERS)])),
        manifest::service("web", "web"),
        workload("StatefulSet", "db", 2, spec(&[probe("db", SERVERS)])),
        manifest::headless("db", "db"),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "elsewhere" },
                "spec": { "type": "ExternalName", "externalName": "kubernetes.default.svc.cluster.local" } }),
        pod("desk", spec(&[debian("desk")])),
    ])?;
    scene.space.ready("web", 1)?;
    scene.space.ready("db", 2)?;
    scene.space.pod("desk")?;
    let script = format!("NS={}\n{SCRIPT}", scene.space.name);
    let there = || scene.space.kubectl.run(&["exec", "desk", "--", "sh", "-c", &script]);
    // The name server hears of new pods a little later.
    let expected = wait::until("all names at the target", || {
        let told = there()?;
        let all = told.contains("db-1.db.") && !told.contains("A db-0.db: \n");
        Ok(all.then_some(told))
    })?;
    let done = scene.mirrord("pod/desk").finish(DEBIAN, &["sh", "-c", &script])?;
    ensure!(done.code == 0, "{done:?}");
    let (here, there) = (done.stdout.trim(), expected.trim());
    for (own, its) in here.lines().zip(there.lines()) {
        ensure!(own == its, "{own:?} by the app, {its:?} at the target");
    }
    ensure!(here == there, "{here}\n---\n{there}");

    let address = scene.space.kubectl.field("service/web", ".spec.clusterIP")?;
    for image in [GO, MUSL] {
        let done = scene.mirrord("pod/desk").finish(image, &["resolve", "web"])?;
        ensure!(done.stdout.contains(&address), "{image}: {done:?}");
    }
    Ok(())
}

#[test]
fn without_remote_dns_the_clusters_names_are_unknown() -> Result<()> {
    let Some(cluster) = Cluster::open("--no-remote-dns in a cluster")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let words = ["timeout", "5", "getent", "hosts", "web"];
    let mirrord = scene.mirrord("deployment/web").with(["--no-remote-dns"]);
    let done = mirrord.finish(DEBIAN, &words)?;
    ensure!(done.code != 0 && done.code != 125, "{done:?}");
    Ok(())
}
