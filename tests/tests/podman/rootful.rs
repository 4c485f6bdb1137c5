//! Root's podman: the kernel redirects, as with docker.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use mirrord_tests::lab::{DEBIAN, PROBE};
use mirrord_tests::leftovers::alone;
use mirrord_tests::mirrord::Mirrord;
use mirrord_tests::scene::Scene;
use mirrord_tests::{preload, wait};
use nix::sys::signal::Signal;

use crate::stage::{Held, answers_here, outlives_its_command, rootful};

/// Sockets of services that sessions started.
fn services() -> Vec<String> {
    let names = std::fs::read_dir("/run").into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("mirrord-podman-")).collect()
}

#[test]
fn podman_steals_mirrors_reaches_out_and_cleans_up() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootful("podman")? else {
        return Ok(());
    };
    let scene = Scene::open_with(&lab, &["-e", "WHO=far", "--hostname", "far"])?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let before = Held::now(&lab.docker)?;

    let mut session = scene.mirrord().with(["--steal"]).probe("thief")?;
    let app = session.app();
    let env = app.must("env")?;
    assert_eq!(env["env"]["WHO"], "far", "{env}");
    let seen = app.must("ask client:7000 whoami")?;
    assert!(seen["answer"]["peer"].as_str().is_some_and(|peer| peer.starts_with(&scene.address)));
    app.must("serve http 0.0.0.0:80 local")?;
    let answer = scene.until_answered_by("local", 80)?;
    let client = scene.client.address()?;
    assert!(answer["peer"].as_str().is_some_and(|peer| peer.starts_with(&client)), "{answer}");
    session.end()?;
    assert_eq!(scene.answers(80)?["name"], "original");

    let mut session = scene.mirrord().with(["--mirror"]).probe("reader")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_copied_to(session.app())?;
    session.end()?;

    let names =
        scene.mirrord().finish(DEBIAN, &["sh", "-c", "hostname; echo \"[$LD_PRELOAD]\""])?;
    assert_eq!(names.stdout, "far\n[]\n", "{names:?}");
    before.as_before()?;
    ensure!(services().is_empty(), "{:?}", services());
    Ok(())
}

#[test]
fn podmans_exit_codes_and_words_come_back() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootful("podman's exit codes")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Held::now(&lab.docker)?;
    assert_eq!(scene.mirrord().finish(PROBE, &["exit", "3"])?.code, 3);
    assert_eq!(scene.mirrord().finish(DEBIAN, &["/etc/passwd"])?.code, 126);
    assert_eq!(scene.mirrord().finish(DEBIAN, &["/no/such/program"])?.code, 127);
    let unknown = scene.mirrord().docker(["--link", "x"]).finish(PROBE, &["exit", "0"])?;
    assert_eq!(unknown.code, 125, "{unknown:?}");
    assert!(unknown.stderr.contains("unknown flag: --link"), "{unknown:?}");
    assert!(unknown.stderr.contains("podman run --help"), "{unknown:?}");
    let pod = scene.mirrord().docker(["--pod", "x"]).finish(PROBE, &["exit", "0"])?;
    assert!(pod.code == 125 && pod.stderr.contains("a pod has a network of its own"), "{pod:?}");
    let absent = Mirrord::new(&lab, "container/nobody").finish(PROBE, &["exit", "0"])?;
    assert_eq!(absent.code, 125, "{absent:?}");
    assert!(absent.stderr.contains("there is no container \"nobody\""), "{absent:?}");
    before.as_before()
}

#[test]
fn published_ports_of_podman_reach_the_app_while_it_steals() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootful("podman's published ports")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let outer = lab.name("outer");
    lab.docker.run(&["network", "create", &outer])?;
    let flags = ["-p", "127.0.0.1:28931:80", "--network", &format!("{outer}:alias=laptop")];
    let session = scene.mirrord().with(["--steal"]).docker(flags).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    answers_here(28931, "local")?;
    let peer = lab.container("peer").on(&outer).probe()?;
    let answer = peer.probe().must("ask laptop:80 http /")?;
    assert_eq!(answer["answer"]["name"], "local");
    drop(session);
    drop(peer);
    lab.docker.run(&["network", "rm", "-f", &outer])?;
    Ok(())
}

#[test]
fn nothing_of_podmans_is_left_when_we_are_killed() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootful("kill -9 with podman")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Held::now(&lab.docker)?;
    for victim in ["front", "keeper"] {
        let mut session = scene.mirrord().with(["--steal"]).probe(victim)?;
        session.app().must("serve http 0.0.0.0:80 local")?;
        scene.until_answered_by("local", 80)?;
        match victim {
            "front" => session.signal(Signal::SIGKILL)?,
            _ => keeper_of(i32::try_from(session.child.id())?)?.signal(Signal::SIGKILL)?,
        }
        session.wait()?;
        before.as_before()?;
        wait::until("the service to be gone", || Ok(services().is_empty().then_some(())))?;
        assert_eq!(scene.answers(80)?["name"], "original");
    }
    Ok(())
}

fn keeper_of(front: i32) -> Result<mirrord_tests::processes::Process> {
    let family = mirrord_tests::processes::family(front);
    let keeper = family.into_iter().find(|one| one.args.get(1).is_some_and(|arg| arg == "session"));
    keeper.ok_or_else(|| anyhow::anyhow!("no keeper"))
}

/// A service of podman's that somebody else runs.
struct Theirs(Child, tempfile::TempDir);

impl Theirs {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let url = format!("unix://{}/podman.sock", folder.path().display());
        let words = ["system", "service", "--time=0", &url];
        let child = Command::new("podman").args(words).stderr(Stdio::null()).spawn()?;
        let theirs = Self(child, folder);
        wait::until("the service", || Ok(Path::new(&theirs.socket()).exists().then_some(())))?;
        Ok(theirs)
    }

    fn socket(&self) -> String {
        format!("{}/podman.sock", self.1.path().display())
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_that_is_named_is_used() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootful("CONTAINER_HOST")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let theirs = Theirs::start()?;
    let url = format!("unix://{}", theirs.socket());
    let run =
        |host: &str| scene.mirrord().env("CONTAINER_HOST", host).finish(PROBE, &["exit", "3"]);
    let done = run(&url)?;
    assert_eq!(done.code, 3, "{done:?}");
    let dead = run("unix:///nowhere/podman.sock")?;
    assert_eq!(dead.code, 125, "{dead:?}");
    assert!(dead.stderr.contains("/nowhere/podman.sock (CONTAINER_HOST)"), "{dead:?}");
    Ok(())
}

#[test]
fn the_preload_library_joins_that_of_an_image() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootful("podman, LD_PRELOAD of an image")? else {
        return Ok(());
    };
    preload::is_kept(&lab)
}

#[test]
fn a_container_in_the_background_keeps_its_session_while_it_runs() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootful("podman run -d")? else {
        return Ok(());
    };
    outlives_its_command(&lab)
}
