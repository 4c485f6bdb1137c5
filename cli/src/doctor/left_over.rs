//! What sessions left, and nobody keeps.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta};

use super::report::{Item, State};
use crate::cluster::connect::{Cluster, ClusterError};
use crate::engine::clean::{SESSION_LABEL, idle, idle_volumes, remove, remove_volume};
use crate::engine::{Engine, apps};
use crate::session::{desk, here};

const TOPIC: &str = "left over";
/// What is younger may still be on its way to run.
const NEW: u64 = 60;

/// Containers of ours that do not run.
pub async fn of_engine(engine: &Engine, fix: bool) -> Vec<Item> {
    let found = match idle(engine).await {
        Ok(found) => found,
        Err(error) => {
            return vec![Item { state: State::Note, ..Item::failure(TOPIC, &error.into()) }];
        }
    };
    let mut items = Vec::new();
    for container in found {
        let name = container.names.into_iter().flatten().next().unwrap_or_default();
        let what = format!("the container {}", name.trim_start_matches('/'));
        let id = container.id.unwrap_or_default();
        let removed = match fix {
            true => Some(remove(engine, &id).await.map_err(|error| error.to_string())),
            false => None,
        };
        items.push(told(&what, removed));
    }
    for name in idle_volumes(engine).await.unwrap_or_default() {
        let removed = match fix {
            true => Some(remove_volume(engine, &name).await.map_err(|error| error.to_string())),
            false => None,
        };
        items.push(told(&format!("the volume {name}"), removed));
    }
    items.extend(lost_apps(engine, fix).await);
    items
}

/// Containers of users that run in a session which nobody keeps any more: without a network.
async fn lost_apps(engine: &Engine, fix: bool) -> Vec<Item> {
    let seen = apps::of_all_sessions(engine).await.unwrap_or_default();
    let mut items = Vec::new();
    for seen in seen.into_values().filter(|seen| seen.app.runs && !seen.kept) {
        let what = format!("the container {} has lost its session", seen.app.name);
        items.push(match fix {
            false => Item::note(TOPIC, format!("{what}, and its network with it"))
                .hint("'mirrord doctor --fix' stops it"),
            true => match apps::stop_one(engine, &seen.app.id).await {
                Ok(()) => Item::fine(TOPIC, format!("{what}: stopped")),
                Err(error) => Item::missing(TOPIC, format!("{what}: {error}"))
                    .hint(format!("stop it by hand: docker stop {}", seen.app.name)),
            },
        });
    }
    items
}

/// Folders of sessions of this machine's processes, and what detached sessions wrote down.
pub fn of_machine(fix: bool) -> Vec<Item> {
    let item = |folder: PathBuf| {
        let removed = fix.then(|| fs::remove_dir_all(&folder).map_err(|error| error.to_string()));
        told(&format!("the folder {}", folder.display()), removed)
    };
    let file = |path: PathBuf| {
        let removed = fix.then(|| fs::remove_file(&path).map_err(|error| error.to_string()));
        told(&format!("the file {}", path.display()), removed)
    };
    let files = desk::left_over().into_iter().map(file);
    here::left_over().into_iter().map(item).chain(files).collect()
}

fn told(what: &str, removed: Option<Result<(), String>>) -> Item {
    match removed {
        None => Item::note(TOPIC, format!("{what}: nobody keeps it"))
            .hint("'mirrord doctor --fix' removes it"),
        Some(Ok(())) => Item::fine(TOPIC, format!("{what}: removed")),
        Some(Err(error)) => {
            Item::missing(TOPIC, format!("{what}: {error}")).hint("remove it by hand")
        }
    }
}

fn is_old(created: i64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u64::try_from(created).ok().and_then(|at| now.checked_sub(at)).is_some_and(|age| age > NEW)
}

/// Jobs of ours that have ended or never began, and ConfigMaps whose Job is gone.
pub async fn of_cluster(cluster: &Cluster, namespaces: &[String], fix: bool) -> Vec<Item> {
    let mut seen = BTreeSet::new();
    let mut items = Vec::new();
    // All that may be seen: the whole cluster, else the namespaces of sessions.
    let places = [None].into_iter().chain(namespaces.iter().map(Some));
    for place in places {
        match in_place(cluster, place, fix, &mut seen).await {
            Ok(found) => {
                items.extend(found);
                if place.is_none() {
                    break;
                }
            }
            Err(_) if place.is_none() => {}
            Err(error) => items.push(Item::note(TOPIC, unseen(error, place))),
        }
    }
    items
}

fn unseen(error: ClusterError, place: Option<&String>) -> String {
    let place = place.map(|place| format!(" in namespace {place}")).unwrap_or_default();
    match error {
        ClusterError::Forbidden { user, right, .. } => {
            format!("agents{place} are not looked for: {user} may not {right}")
        }
        error => format!("agents{place} are not looked for: {error}"),
    }
}

async fn in_place(
    cluster: &Cluster,
    place: Option<&String>,
    fix: bool,
    seen: &mut BTreeSet<String>,
) -> Result<Vec<Item>, ClusterError> {
    let client = || cluster.client.clone();
    let ours = ListParams::default().labels(SESSION_LABEL);
    let jobs: Api<Job> =
        place.map_or_else(|| Api::all(client()), |place| Api::namespaced(client(), place));
    let maps: Api<ConfigMap> =
        place.map_or_else(|| Api::all(client()), |place| Api::namespaced(client(), place));
    let jobs = cluster.ask("cannot list jobs", jobs.list(&ours)).await?.items;
    let maps = cluster.ask("cannot list configmaps", maps.list_metadata(&ours)).await?.items;
    let living: BTreeSet<String> = jobs.iter().filter_map(|job| job.metadata.uid.clone()).collect();
    let mut items = Vec::new();
    for job in jobs.iter().filter(|job| is_idle(job)) {
        let (what, namespace, name) = named("job", &job.metadata);
        if seen.insert(what.clone()) {
            let api: Api<Job> = Api::namespaced(client(), &namespace);
            let removed = async {
                let how = DeleteParams::background();
                let removal = api.delete(&name, &how);
                cluster.ask("cannot remove it", removal).await.map(drop)
            };
            items.push(settle(&what, fix, removed).await);
        }
    }
    for map in maps.iter().filter(|map| is_orphan(&map.metadata, &living)) {
        let (what, namespace, name) = named("configmap", &map.metadata);
        if seen.insert(what.clone()) {
            let api: Api<ConfigMap> = Api::namespaced(client(), &namespace);
            let removed = async {
                let how = DeleteParams::default();
                let removal = api.delete(&name, &how);
                cluster.ask("cannot remove it", removal).await.map(drop)
            };
            items.push(settle(&what, fix, removed).await);
        }
    }
    Ok(items)
}

async fn settle(
    what: &str,
    fix: bool,
    removal: impl Future<Output = Result<(), ClusterError>>,
) -> Item {
    let removed = match fix {
        true => Some(removal.await.or_else(gone_is_removed)),
        false => None,
    };
    told(what, removed)
}

fn gone_is_removed(error: ClusterError) -> Result<(), String> {
    match error {
        error if error.is_not_found() => Ok(()),
        ClusterError::Forbidden { user, right, .. } => Err(format!("{user} may not {right}")),
        error => Err(error.to_string()),
    }
}

fn named(kind: &str, metadata: &ObjectMeta) -> (String, String, String) {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    (format!("the {kind} {name} in namespace {namespace}"), namespace, name)
}

fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
}

/// A job whose agent does not run; one that runs leaves by itself when nobody keeps it.
fn is_idle(job: &Job) -> bool {
    let active = job.status.as_ref().and_then(|status| status.active).unwrap_or(0);
    let going = job.metadata.deletion_timestamp.is_some();
    active == 0 && !going && is_old(created(&job.metadata))
}

fn is_orphan(metadata: &ObjectMeta, living: &BTreeSet<String>) -> bool {
    let owned = metadata.owner_references.iter().flatten().any(|owner| living.contains(&owner.uid));
    !owned && metadata.deletion_timestamp.is_none() && is_old(created(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(status: serde_json::Value, created: &str) -> Job {
        let metadata = json!({"name": "a", "creationTimestamp": created});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).expect("a job")
    }

    #[test]
    fn a_job_that_runs_or_is_new_is_kept() {
        let old = "2020-01-01T00:00:00Z";
        assert!(is_idle(&job(json!({"succeeded": 1}), old)));
        assert!(is_idle(&job(json!({}), old)));
        assert!(!is_idle(&job(json!({"active": 1}), old)));
        assert!(!is_idle(&job(json!({}), "2999-01-01T00:00:00Z")));
    }

    #[test]
    fn a_config_map_lives_with_its_job() {
        let map = |uid: &str| -> ObjectMeta {
            serde_json::from_value(json!({
                "name": "a", "creationTimestamp": "2020-01-01T00:00:00Z",
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": uid}],
            }))
            .expect("metadata")
        };
        let living = BTreeSet::from(["u1".to_owned()]);
        assert!(!is_orphan(&map("u1"), &living));
        assert!(is_orphan(&map("u2"), &living));
    }
}
