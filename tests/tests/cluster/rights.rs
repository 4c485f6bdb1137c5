//! Exactly the documented Role is enough, and a right that is missing is named before anything is
//! created.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mirrord_tests::cluster::{Cluster, Objects, Scene};
use mirrord_tests::lab::{DEBIAN, PROBE};
use mirrord_tests::mirrord::{Mirrord, binary};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// Whose token a session uses.
const DEVELOPER: &str = "developer";

/// A namespace with a service account that has the Role that `doctor` prints, and nothing else.
struct Narrow<'c> {
    scene: Scene<'c>,
    config: NamedTempFile,
    role: Value,
}

impl<'c> Narrow<'c> {
    fn open(cluster: &'c Cluster, mode: &str) -> Result<Self> {
        let scene = Scene::open(cluster)?;
        scene.space.apply(&[json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": DEVELOPER },
        })])?;
        let role = printed_role(&scene, mode)?;
        let config = kubeconfig(&scene)?;
        let narrow = Self { scene, config, role };
        narrow.grant(&narrow.role)?;
        Ok(narrow)
    }

    fn grant(&self, role: &Value) -> Result<()> {
        let subject = json!({ "kind": "ServiceAccount", "name": DEVELOPER,
                              "namespace": self.scene.space.name });
        let of = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role",
                         "name": role["metadata"]["name"] });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": DEVELOPER }, "roleRef": of, "subjects": [subject],
        });
        self.scene.space.apply(&[role.clone(), binding])
    }

    /// The targets have no shell, and which image of the node has one, the Role need not tell.
    fn at(&self, target: &str, mode: &str) -> Mirrord<'c> {
        let mirrord = self.scene.mirrord_as(self.config.path(), target);
        let mirrord = mirrord.with(["--agent-mode", mode]);
        if mode == "ephemeral" { mirrord.with(["-i", DEBIAN]) } else { mirrord }
    }

    fn mirrord(&self, mode: &str) -> Mirrord<'c> {
        self.at("deployment/web", mode)
    }
}

/// The Role of `mirrord doctor --role MODE`.
fn printed_role(scene: &Scene<'_>, mode: &str) -> Result<Value> {
    let mut command = Command::new(binary());
    command.env("KUBECONFIG", scene.space.kubectl.config());
    command.args(["doctor", "--role", mode, "-n", &scene.space.name]);
    let output = command.output().context("run mirrord doctor")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let yaml = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
    let printed = scene.space.kubectl.feed(&words, &yaml).with_context(|| yaml.clone())?;
    serde_json::Deserializer::from_str(&printed)
        .into_iter::<Value>()
        .filter_map(Result::ok)
        .flat_map(|value| match value["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![value],
        })
        .find(|value| value["kind"] == "Role")
        .with_context(|| format!("no Role in {yaml}"))
}

/// The kubeconfig of the service account.
fn kubeconfig(scene: &Scene<'_>) -> Result<NamedTempFile> {
    let token = scene.space.kubectl.run(&["create", "token", DEVELOPER])?;
    let words = ["config", "view", "--raw", "--minify"];
    let mut config = scene.cluster.kubectl.json(&words)?;
    config["users"] = json!([{ "name": DEVELOPER, "user": { "token": token } }]);
    config["contexts"][0]["context"]["user"] = DEVELOPER.into();
    let file = tempfile::Builder::new().prefix("kubeconfig").tempfile()?;
    std::fs::write(file.path(), config.to_string())?;
    Ok(file)
}

#[test]
fn the_printed_role_is_enough_for_a_job() -> Result<()> {
    enough("the Role of a Job", "job")
}

#[test]
fn the_printed_role_is_enough_for_an_ephemeral_container() -> Result<()> {
    enough("the Role of an ephemeral container", "ephemeral")
}

fn enough(test: &str, mode: &str) -> Result<()> {
    let Some(cluster) = Cluster::open(test)? else {
        return Ok(());
    };
    let narrow = Narrow::open(&cluster, mode)?;
    for target in ["deployment/web", "service/web", "pod/client"] {
        let mirrord = narrow.at(target, mode).with(["--no-incoming"]);
        let done = mirrord.finish(PROBE, &["exit", "3"])?;
        ensure!(done.code == 3, "{target}: {done:?}");
    }
    let mut session = narrow.scene.stealing(narrow.mirrord(mode), "web:80")?;
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    Ok(())
}

/// A verb of a Role, where it stands, and of what.
#[derive(Debug, Clone)]
struct Verb {
    rule: usize,
    verb: String,
    resource: String,
}

/// One by one, each verb for each resource.
fn verbs(role: &Value) -> Vec<Verb> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for (rule, one) in list(&role["rules"]).iter().enumerate() {
        for resource in list(&one["resources"]) {
            let verbs = list(&one["verbs"]);
            all.extend(verbs.iter().map(|verb| Verb {
                rule,
                verb: text(verb),
                resource: text(&resource),
            }));
        }
    }
    all
}

/// The same Role without that one.
fn without(role: &Value, removed: &Verb) -> Value {
    let mut role = role.clone();
    let rule = role["rules"][removed.rule].clone();
    let mut others = rule.clone();
    let keep = |list: &Value, gone: &str| -> Vec<Value> {
        list.as_array().into_iter().flatten().filter(|one| *one != gone).cloned().collect()
    };
    others["resources"] = keep(&rule["resources"], &removed.resource).into();
    let mut rest = rule.clone();
    rest["resources"] = json!([removed.resource]);
    rest["verbs"] = keep(&rule["verbs"], &removed.verb).into();
    let mut rules = role["rules"].as_array().cloned().unwrap_or_default();
    rules.remove(removed.rule);
    for rule in [others, rest] {
        let empty = |field: &str| rule[field].as_array().is_none_or(Vec::is_empty);
        if !empty("resources") && !empty("verbs") {
            rules.push(rule);
        }
    }
    role["rules"] = rules.into();
    role
}

/// What a session in the place of a Deployment never asks about: other kinds of targets.
fn of_other_kinds(verb: &Verb) -> bool {
    let kinds = [
        "statefulsets",
        "daemonsets",
        "replicasets",
        "cronjobs",
        "rollouts",
        "services",
        "endpointslices",
    ];
    kinds.contains(&verb.resource.split('.').next().unwrap_or(""))
}

#[test]
fn each_verb_that_is_missing_for_a_job_is_named_before_anything_is_created() -> Result<()> {
    each_missing("a missing verb of a Job", "job", &["jobs", "configmaps", "pods", "deployments"])
}

#[test]
fn each_verb_that_is_missing_for_an_ephemeral_container_is_named_before_anything_is_created()
-> Result<()> {
    let needed = ["pods/ephemeralcontainers", "pods", "deployments"];
    each_missing("a missing verb of an ephemeral container", "ephemeral", &needed)
}

fn each_missing(test: &str, mode: &str, needed: &[&str]) -> Result<()> {
    let Some(cluster) = Cluster::open(test)? else {
        return Ok(());
    };
    let narrow = Narrow::open(&cluster, mode)?;
    let before = Objects::now(&narrow.scene.space)?;
    let mut named = BTreeSet::new();
    for verb in verbs(&narrow.role).into_iter().filter(|verb| !of_other_kinds(verb)) {
        narrow.grant(&without(&narrow.role, &verb))?;
        let done = narrow.mirrord(mode).with(["--no-incoming"]).finish(PROBE, &["exit", "3"])?;
        if done.code == 3 {
            // Jobs as targets: what only another kind of target needs.
            ensure!(verb.resource == "jobs" && verb.verb == "get", "{verb:?} is not needed");
            before.as_before(std::time::Duration::from_secs(30))?;
            continue;
        }
        let words = [verb.verb.as_str(), &verb.resource];
        let told = words.iter().all(|word| done.stderr.contains(word));
        ensure!(done.code == 125 && told, "without {verb:?}: {done:?}");
        ensure!(done.stderr.contains("hint: "), "{}", done.stderr);
        before.as_before(std::time::Duration::from_secs(1))?;
        named.insert(verb.resource);
    }
    for resource in needed {
        ensure!(named.contains(*resource), "{resource} is among {named:?}");
    }
    Ok(())
}

#[test]
fn doctor_says_what_is_allowed_and_what_is_not() -> Result<()> {
    let Some(cluster) = Cluster::open("mirrord doctor")? else {
        return Ok(());
    };
    let narrow = Narrow::open(&cluster, "job")?;
    let doctor = |config: &Path| -> Result<(Option<i32>, String)> {
        let mut command = Command::new(binary());
        command.env("KUBECONFIG", config).args(["doctor", "-n", &narrow.scene.space.name]);
        let output = command.output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let (code, said) = doctor(narrow.config.path())?;
    ensure!(code == Some(0), "{said}");
    let mut role = narrow.role.clone();
    role["rules"] = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] }]);
    narrow.grant(&role)?;
    let (code, said) = doctor(narrow.config.path())?;
    ensure!(code == Some(1) && said.contains("configmaps"), "{code:?}: {said}");
    Ok(())
}
