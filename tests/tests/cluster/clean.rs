//! After any end of a session nothing of it is left: no object, no rule, no program, no container.

use std::time::Duration;

use anyhow::{Result, ensure};
use mirrord_tests::cluster::{Cluster, Network, Node, Objects, Pod, Scene, gone};
use mirrord_tests::lab::PROBE;
use mirrord_tests::mirrord::Session;
use mirrord_tests::terminal::Terminal;
use mirrord_tests::{processes, wait};
use nix::sys::signal::Signal;

/// After an end that the session saw.
const SOON: Duration = Duration::from_secs(30);
/// After an end that nobody was left to see: the agent notices, the cluster removes its Job.
const ALONE: Duration = Duration::from_secs(90);

/// The state that every end must lead back to.
struct Before<'c, 's> {
    scene: &'s Scene<'c>,
    objects: Objects,
    network: Option<Network>,
    pod: Pod,
}

impl<'c, 's> Before<'c, 's> {
    fn of(scene: &'s Scene<'c>) -> Result<Self> {
        let pod = scene.pod("web")?;
        // Where the node is another machine, the objects alone are compared.
        let network = Node::of(&pod).map(|_| Network::of(&pod)).transpose()?;
        scene.until_answered_by(&pod.name, "web:80")?;
        Ok(Self { scene, objects: Objects::now(&scene.space)?, network, pod })
    }

    fn stealing(&self) -> Result<(Session<'c>, String)> {
        let mirrord = self.scene.mirrord("deployment/web");
        let session = self.scene.stealing(mirrord, "web:80")?;
        if let Some(network) = &self.network {
            ensure!(network.programs()? > 0, "the steal is a program, and this test sees it");
        }
        let id = session.id()?;
        Ok((session, id))
    }

    /// Everything is as before within `patience`.
    fn again(&self, id: &str, patience: Duration) -> Result<()> {
        let scene = self.scene;
        gone(&scene.cluster.kubectl, id, patience)?;
        self.objects.as_before(SOON)?;
        if let Some(network) = &self.network {
            network.as_before(patience.max(SOON))?;
        }
        let label = format!("label=mirrord.session={id}");
        let docker = &scene.cluster.lab.docker;
        wait::within(SOON, "the session's containers to be gone", || {
            Ok(docker.run(&["ps", "-aq", "--filter", &label])?.is_empty().then_some(()))
        })?;
        ensure!(scene.answers("web:80")?["name"] == self.pod.name.as_str(), "the original serves");
        scene.unharmed(&self.pod)
    }
}

#[test]
fn nothing_is_left_after_the_app_or_a_signal_ends_a_session() -> Result<()> {
    let Some(cluster) = Cluster::open("what is left in a cluster")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Before::of(&scene)?;
    let (mut session, id) = before.stealing()?;
    assert_eq!(session.end()?, 0);
    before.again(&id, SOON)?;

    let done = scene.mirrord("deployment/web").finish(PROBE, &["exit", "3"])?;
    assert_eq!(done.code, 3, "{done:?}");
    before.objects.as_before(SOON)?;

    let (mut session, id) = before.stealing()?;
    session.signal(Signal::SIGTERM)?;
    assert_eq!(session.wait()?, 143);
    before.again(&id, SOON)
}

#[test]
fn ctrl_c_leaves_nothing() -> Result<()> {
    let Some(cluster) = Cluster::open("Ctrl-C of a session in a cluster")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Before::of(&scene)?;
    let name = cluster.lab.name("app");
    cluster.lab.adopt(&name);
    let command = scene.mirrord("deployment/web").command(&name, PROBE, &["wait"]);
    let mut terminal = Terminal::start(&command)?;
    terminal.until("\"waiting\"")?;
    let label = "{{index .Config.Labels \"mirrord.session\"}}";
    let id = cluster.lab.docker.inspect(&name, label)?;
    terminal.type_in("\x03")?;
    assert_eq!(terminal.end()?, 130);
    before.again(&id, SOON)
}

#[test]
fn an_early_signal_leaves_nothing() -> Result<()> {
    let Some(cluster) = Cluster::open("an early signal to a session in a cluster")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Before::of(&scene)?;
    for pause in [50, 200, 500, 1000, 1800] {
        let mut session = scene.mirrord("deployment/web").start("app", PROBE, &["wait"])?;
        // No condition can be waited for here: any moment of the start must do.
        std::thread::sleep(Duration::from_millis(pause));
        session.signal(Signal::SIGTERM)?;
        let code = session.wait()?;
        assert_eq!(code, 143, "after {pause} ms: {}", session.stderr());
        before.objects.as_before(SOON)?;
    }
    scene.unharmed(&before.pod)
}

#[test]
fn kill_9_of_the_command_leaves_nothing() -> Result<()> {
    let Some(cluster) = Cluster::open("kill -9 of the command in a cluster")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Before::of(&scene)?;
    let (mut session, id) = before.stealing()?;
    session.signal(Signal::SIGKILL)?;
    session.wait()?;
    before.again(&id, SOON)
}

/// The hidden process of the command that keeps the session.
fn keeper(session: &Session<'_>) -> Result<processes::Process> {
    let family = processes::family(i32::try_from(session.child.id())?);
    let found =
        family.iter().find(|process| process.args.get(1).is_some_and(|arg| arg == "session"));
    found.cloned().ok_or_else(|| anyhow::anyhow!("no keeper in {family:?}"))
}

#[test]
fn kill_9_of_the_keeper_leaves_nothing() -> Result<()> {
    let Some(cluster) = Cluster::open("kill -9 of the keeper in a cluster")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Before::of(&scene)?;
    let (mut session, id) = before.stealing()?;
    keeper(&session)?.signal(Signal::SIGKILL)?;
    session.wait()?;
    before.again(&id, ALONE)
}

#[test]
fn kill_9_of_all_of_ours_on_this_machine_leaves_nothing() -> Result<()> {
    let Some(cluster) = Cluster::open("kill -9 of everything here")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Before::of(&scene)?;
    let (mut session, id) = before.stealing()?;
    for process in processes::family(i32::try_from(session.child.id())?) {
        process.signal(Signal::SIGKILL)?;
    }
    session.wait()?;
    // The app's container is the user's: nobody is left to stop it, unless its input's end did.
    let _ = cluster.lab.docker.run(&["rm", "-f", &session.name]);
    before.again(&id, ALONE)
}

#[test]
fn kill_9_of_all_of_ours_while_an_agent_is_being_made_leaves_nothing_in_the_cluster() -> Result<()>
{
    let Some(cluster) = Cluster::open("kill -9 of everything here, early")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Objects::now(&scene.space)?;
    for number in 0..4 {
        let mirrord = scene.mirrord("deployment/web");
        let mut session = mirrord.start(&format!("early{number}"), PROBE, &["wait"])?;
        wait::until("the agent's Job", || {
            let jobs = scene.space.kubectl.run(&["get", "jobs", "-o", "name"])?;
            Ok((jobs.lines().count() > number).then_some(()))
        })?;
        for process in processes::family(i32::try_from(session.child.id())?) {
            process.signal(Signal::SIGKILL)?;
        }
        session.wait()?;
        let _ = cluster.lab.docker.run(&["rm", "-f", &session.name]);
    }
    before.as_before(ALONE)
}

#[test]
fn a_killed_sidecar_leaves_nothing() -> Result<()> {
    let Some(cluster) = Cluster::open("a killed sidecar in a cluster")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Before::of(&scene)?;
    let (mut session, id) = before.stealing()?;
    cluster.lab.docker.run(&["kill", &session.part("proxy")?])?;
    assert_ne!(session.wait()?, 0, "{}", session.stderr());
    before.again(&id, ALONE)
}

#[test]
fn a_killed_agent_leaves_the_target_serving_and_is_told() -> Result<()> {
    let Some(cluster) = Cluster::open("a killed agent in a cluster")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Before::of(&scene)?;
    let (mut session, id) = before.stealing()?;
    let label = format!("mirrord.session={id}");
    let said = session.stderr();
    scene.space.kubectl.run(&["delete", "pods", "-l", &label, "--force", "--grace-period=0"])?;
    session.until_said(&said, "the tunnel to the target is cut")?;
    let back = scene.until_answered_by("local", "web:80");
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    before.again(&id, ALONE)?;
    back.map(drop)
}

#[test]
fn an_ephemeral_agent_leaves_its_record_and_nothing_else() -> Result<()> {
    let Some(cluster) = Cluster::open("what an ephemeral agent leaves")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Before::of(&scene)?;
    let mirrord = || scene.mirrord("deployment/web").with(["--agent-mode", "ephemeral"]);
    let mut session = scene.stealing(mirrord(), "web:80")?;
    let id = session.id()?;
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    before.again(&id, SOON)?;
    let over = ".status.ephemeralContainerStatuses[*].state.terminated.exitCode";
    wait::until("the container's end", || {
        let codes = scene.space.kubectl.field(&before.pod.target(), over)?;
        Ok((!codes.is_empty()).then_some(()))
    })?;

    let mut session = scene.stealing(mirrord(), "web:80")?;
    let id = session.id()?;
    for process in processes::family(i32::try_from(session.child.id())?) {
        process.signal(Signal::SIGKILL)?;
    }
    session.wait()?;
    let _ = cluster.lab.docker.run(&["rm", "-f", &session.name]);
    wait::within(ALONE, "the original to serve again", || {
        let answer = scene.answers("web:80")?;
        Ok((answer["name"] == before.pod.name.as_str()).then_some(()))
    })?;
    before.again(&id, ALONE)
}
