//! An ephemeral container in the target's own pod: it shares the pod's network and the target
//! container's processes, and needs no right on the node.
//!
//! It can mount no new volume, so a shell puts the starter into a file of the container's own. Its
//! record stays in the pod until the pod is replaced; that is why the starter is not in it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::fate::{StartError, hopeless};
use super::{Order, Place, Site, job};
use crate::cluster::delivery;
use crate::cluster::target::TargetPod;
use crate::failure::Failure;

/// How often the container is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// So many images are tried for a shell; each trial leaves a record in the pod.
const TRIALS: usize = 3;
/// Beginnings of the names of images that have a shell.
const WITH_SHELL: &[&str] =
    &["busybox", "alpine", "debian", "ubuntu", "nginx", "redis", "postgres", "python", "node"];
/// Ports that no program is usually given.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Exit code of the loader when no folder takes a program.
const NO_FOLDER: i32 = 97;

/// Puts so many bytes of standard input into a file that can be run, and runs it.
const LOADER: &str = r#"
umask 077
exec 3>&2 2>/dev/null
have=
for folder in /tmp /var/tmp /run / .; do
  file=$folder/$1
  if [ -z "$have" ]; then head -c "$2" >"$file" || continue; have=$file
  else cat "$have" >"$file" || continue; fi
  chmod 700 "$file"
  "$file" </dev/null >/dev/null
  [ $? = 126 ] && continue
  shift 2
  exec "$file" "$@" 2>&3 3>&-
done
echo "no folder of its image takes a program" >&3
exit 97
"#;

/// A container in the target's pod, with the starter on its way there.
pub struct Created {
    /// Where the agent will listen.
    pub site: Site,
    /// The container's name.
    pub name: String,
    /// The connection that the starter may still be travelling on.
    _attached: AttachedProcess,
}

/// Adds the container to the target's pod and brings the starter.
pub async fn create(order: &Order<'_>) -> Result<Created, StartError> {
    let Place::Beside(target) = &order.place else {
        return Err(order.failed("an ephemeral container needs a target"));
    };
    let (namespace, pod) = (target.namespace.clone(), target.pod.clone());
    let site = Site { namespace, pod, port: port(order) };
    let mut images = vec![order.settings.image.clone().unwrap_or_else(|| target.image.clone())];
    let mut trial = 0;
    while let Some(image) = images.get(trial).cloned() {
        let name = container_name(order, trial);
        match start(order, target, &site, &name, &image).await {
            Err(StartError::NoShell) if trial == 0 && order.settings.image.is_none() => {
                images.extend(others(order, target, &image).await?);
            }
            Err(StartError::NoShell) => {}
            Err(error) => return Err(error),
            Ok(_attached) => return Ok(Created { site, name, _attached }),
        }
        trial += 1;
    }
    let failure = Failure::new("no image with a shell is known for an ephemeral container");
    let tried = format!("tried: {}", images.join(", "));
    Err(StartError::Failed(
        failure
            .because(tried)
            .hint("name one that the node has with --agent-image, or use --agent-mode job"),
    ))
}

fn container_name(order: &Order<'_>, trial: usize) -> String {
    match trial {
        0 => order.name.clone(),
        later => format!("{}-try{later}", order.name),
    }
}

/// A port by the session's random id, so that two sessions in one pod do not meet.
fn port(order: &Order<'_>) -> u16 {
    let sum = order.name.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
    PORTS.start + u16::try_from(sum % u32::from(PORTS.end - PORTS.start)).unwrap_or(0)
}

async fn start(
    order: &Order<'_>,
    target: &TargetPod,
    site: &Site,
    name: &str,
    image: &str,
) -> Result<AttachedProcess, StartError> {
    let pods: Api<Pod> = Api::namespaced(order.cluster.client.clone(), &target.namespace);
    let container = container(order, target, site, name, image);
    let patch = Patch::Strategic(json!({ "spec": { "ephemeralContainers": [container] } }));
    let how = PatchParams::default();
    let patched = pods.patch_subresource("ephemeralcontainers", &target.pod, &how, &patch);
    order.ask(&format!("cannot add an ephemeral container to pod {}", target.pod), patched).await?;
    running(order, &pods, &target.pod, name).await?;
    let mut attached = attach(order, &pods, &target.pod, name).await?;
    let sent = send(&mut attached).await;
    sent.map_err(|error| order.failed(format!("its shell did not take the starter: {error}")))?;
    Ok(attached)
}

/// Waits until the container runs.
async fn running(
    order: &Order<'_>,
    pods: &Api<Pod>,
    pod: &str,
    name: &str,
) -> Result<(), StartError> {
    loop {
        let found = order.ask("cannot read the target's pod", pods.get(pod)).await?;
        if let Some(status) = status(&found, name) {
            if status.state.as_ref().is_some_and(|state| state.running.is_some()) {
                return Ok(());
            }
            if let Some(why) = hopeless(status) {
                return Err(match no_shell(&why) {
                    true => StartError::NoShell,
                    false => order.failed(why),
                });
            }
        }
        sleep(LOOK).await;
    }
}

fn no_shell(why: &str) -> bool {
    why.contains("\"sh\"") && (why.contains("not found") || why.contains("no such file"))
}

async fn attach(
    order: &Order<'_>,
    pods: &Api<Pod>,
    pod: &str,
    name: &str,
) -> Result<AttachedProcess, StartError> {
    let how = AttachParams::default().container(name).stdin(true).stdout(false).stderr(false);
    let how = how.max_stdin_buf_size(delivery::STARTER.len());
    let doing = format!("cannot attach to the ephemeral container {name}");
    order.ask(&doing, pods.attach(pod, &how)).await
}

async fn send(attached: &mut AttachedProcess) -> std::io::Result<()> {
    let mut input = attached.stdin().ok_or_else(|| std::io::Error::other("no standard input"))?;
    input.write_all(delivery::STARTER).await?;
    input.shutdown().await
}

/// Waits until the container can't be hoped for any more.
pub async fn fate(order: &Order<'_>, created: &Created) -> StartError {
    let pods: Api<Pod> = Api::namespaced(order.cluster.client.clone(), &created.site.namespace);
    loop {
        sleep(3 * LOOK).await;
        let Ok(found) = pods.get(&created.site.pod).await else { continue };
        if let Some(why) = status(&found, &created.name).and_then(hopeless) {
            return order.failed(match why.contains(&format!("code {NO_FOLDER}")) {
                true => "no folder of its image takes a program: name another image with \
                         --agent-image"
                    .to_owned(),
                false => why,
            });
        }
    }
}

/// The state of one of a pod's ephemeral containers.
pub fn status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)
}

/// Images of the node that have a shell, as far as their names tell.
async fn others(
    order: &Order<'_>,
    target: &TargetPod,
    tried: &str,
) -> Result<Vec<String>, StartError> {
    let nodes: Api<Node> = Api::all(order.cluster.client.clone());
    let node = nodes.get(&target.node).await.map_err(|error| {
        let doing = "cannot look for an image with a shell on the node";
        let failure = Failure::from(order.cluster.explain(doing, error));
        let failure = failure.because(format!("the target's image {tried} has none"));
        StartError::Failed(failure.hint(
            "name an image with a shell that the node has with --agent-image, or use --agent-mode job",
        ))
    })?;
    let images = node.status.and_then(|status| status.images).unwrap_or_default();
    let names: Vec<String> = images
        .into_iter()
        .filter_map(|image| image.names?.into_iter().find(|name| !name.contains('@')))
        .collect();
    let rank = |name: &String| {
        let base = name.rsplit('/').next().unwrap_or(name);
        WITH_SHELL.iter().position(|shell| base.starts_with(shell))
    };
    let mut ranked: Vec<(usize, String)> =
        names.into_iter().filter_map(|name| Some((rank(&name)?, name))).collect();
    ranked.sort();
    Ok(ranked.into_iter().map(|(_, name)| name).filter(|name| name != tried).take(TRIALS).collect())
}

fn container(order: &Order<'_>, target: &TargetPod, site: &Site, name: &str, image: &str) -> Value {
    let file = format!(".{name}");
    let mut command: Vec<String> = ["sh", "-c", LOADER, "mirrord"].map(str::to_owned).to_vec();
    command.extend([file, delivery::STARTER.len().to_string()]);
    command.extend(order.arguments(site.port));
    json!({
        "name": name,
        "image": image,
        "imagePullPolicy": if order.settings.image.is_some() { "IfNotPresent" } else { "Never" },
        "targetContainerName": target.container,
        "command": command,
        "stdin": true,
        "stdinOnce": true,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": if order.bare { bare(target) } else { privileges(order) },
    })
}

fn privileges(order: &Order<'_>) -> Value {
    let mut capabilities = vec!["SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN", "NET_RAW", "BPF"];
    capabilities.extend(order.unix_sockets.then_some("DAC_OVERRIDE"));
    json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "capabilities": { "drop": ["ALL"], "add": capabilities },
    })
}

/// No right at all; as the target's own user, who may read its environment.
fn bare(target: &TargetPod) -> Value {
    let mut context = job::none();
    context["readOnlyRootFilesystem"] = false.into();
    if let Some(user) = target.run_as_user.filter(|user| *user != 0) {
        context["runAsUser"] = user.into();
        context["runAsGroup"] = target.run_as_group.unwrap_or(user).into();
    }
    context
}
