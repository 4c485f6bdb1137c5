//! What does not work, in compose's own way.

use std::process::Command;

use anyhow::{Context, Result};
use mirrord_tests::background::finish;
use mirrord_tests::compose::Project;
use mirrord_tests::lab::Lab;
use mirrord_tests::mirrord::binary;
use mirrord_tests::scene::Scene;

use crate::provider::{file, file_with};

#[test]
fn compose_shows_what_is_wrong_and_nothing_is_left() -> Result<()> {
    let Some(lab) = Lab::open("errors of a provider")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let target = scene.target.target();
    let published = lab.container("published").with(["-p", "127.0.0.1::80"]).probe()?;
    let taken = lab.docker.run(&["port", &published.name, "80/tcp"])?;
    let taken = taken.rsplit(':').next().unwrap_or_default().to_owned();
    let Some(project) = Project::new(&lab, "wrong", "")? else { return Ok(()) };
    let occupied = format!("ports: ['127.0.0.1:{taken}:80']");
    let with = |keys: &str| file_with(&target, "", keys);
    let lines = [
        (file(&format!("{target}x"), ""), "there is no container", "hint: did you mean"),
        (file(&target, ", tagret: x"), "mirrord has no option \"tagret\"", "did you mean target?"),
        (file(&target, ", no_env: maybe"), "option no_env must be true or false", "\"maybe\""),
        (file(&target, ", mirror: true"), "--steal", "cannot be used with"),
        (file(&target, ", plane: layer"), "cannot be given the preload library", "hint: leave"),
        (file(&target, ", ports: '80:80'"), "no option \"ports\"", "stands beside provider"),
        (with("network_mode: host"), "--network host gives the container", "hint: leave"),
        (with("network_mode: none"), "--network none gives", "hint: leave"),
        (with("network_mode: service:peer"), "--network container:peer is", "hint: give"),
        (with("networks: [nowhere]"), "refers to undefined network nowhere", "invalid compose"),
        (with(&occupied), "cannot start the sidecar", "port is already allocated"),
    ];
    for (file, sentence, detail) in lines {
        project.write("compose.yaml", &file)?;
        // Without the peer: compose gives up while the engine is still making it.
        let done = project.compose(&["up", "-d", "orders"])?;
        assert_eq!(done.code, 1, "{file}: {done:?}");
        assert!(done.stderr.contains(sentence), "{sentence}: {}", done.stderr);
        assert!(done.stderr.contains(detail), "{detail}: {}", done.stderr);
        project.background.until_empty()?;
        project.write("compose.yaml", &with(""))?;
        project.must(&["down"])?;
        project.until_nothing_is_left().with_context(|| format!("after {sentence}"))?;
    }
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn a_sidecars_name_that_is_taken_is_said_to_be() -> Result<()> {
    let Some(lab) = Lab::open("a name that is taken")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let file = file(&scene.target.target(), "");
    let Some(project) = Project::new(&lab, "taken", &file)? else { return Ok(()) };
    let other = lab.container("taken-cluster").probe()?;
    assert_eq!(other.name, project.sidecar("cluster"));
    let done = project.compose(&["up", "-d"])?;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("is already in use"), "{}", done.stderr);
    project.must(&["down"])?;
    assert!(other.id().is_ok(), "a container of somebody else's stays");
    Ok(())
}

#[test]
fn a_compose_that_cannot_hand_on_variables_is_named_with_the_version_that_is_needed() -> Result<()>
{
    let Some(lab) = Lab::open("an old compose")? else { return Ok(()) };
    let Some(project) = Project::new(&lab, "old", "")? else { return Ok(()) };
    project.write("bin/docker", "#!/bin/sh\necho 2.40.3\n")?;
    finish(Command::new("chmod").arg("+x").arg(project.path("bin/docker")))?;
    let words = ["compose", "--project-name=x", "up", "--target=container/x", "cluster"];
    let program = binary().to_string_lossy().into_owned();
    let lacking = [("COMPOSE_PROVIDER_MESSAGES", Some("error,info,setenv")), ("NONE", None)];
    for (name, value) in lacking {
        let mut command = project.command(&program, &words);
        command.env_remove("COMPOSE_PROVIDER_MESSAGES").envs(value.map(|value| (name, value)));
        let done = finish(&command)?;
        assert_eq!((done.code, done.stderr.as_str()), (1, ""), "{done:?}");
        assert!(done.stdout.contains("\"type\":\"error\""), "{done:?}");
        assert!(done.stdout.contains("docker compose 5.2.0 or newer"), "{done:?}");
    }
    Ok(())
}

#[test]
fn a_compose_that_is_too_old_to_be_stood_before_is_named_with_the_version_that_is_needed()
-> Result<()> {
    let Some(lab) = Lab::open("an old compose, in front")? else { return Ok(()) };
    let text = "services: {a: {image: x, x-mirrord: {target: container/x}}}";
    let Some(project) = Project::new(&lab, "old", text)? else { return Ok(()) };
    // All of it is the real one's but its version.
    let real =
        String::from_utf8(Command::new("sh").args(["-c", "command -v docker"]).output()?.stdout)?;
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *version*) echo 5.1.0 ;; *) exec {} \"$@\" ;; esac\n",
        real.trim()
    );
    project.write("bin/docker", &script)?;
    finish(Command::new("chmod").arg("+x").arg(project.path("bin/docker")))?;
    let done = project.mirrord(&[], &["up", "-d"])?;
    assert_ne!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("docker compose 5.1.0"), "{done:?}");
    assert!(done.stderr.contains("hint: docker compose 5.6.0 or newer"), "{done:?}");
    project.until_nothing_is_left()
}

#[test]
fn a_provider_alone_in_the_default_network_is_told_by_compose() -> Result<()> {
    let Some(lab) = Lab::open("no default network")? else { return Ok(()) };
    let text = "services:
  cluster:
    provider: {type: mirrord, options: {target: container/x}}
    networks: {default: {}}
  orders:
    image: mirrord-apps/debian
    network_mode: container:x
    depends_on: [cluster]
";
    let Some(project) = Project::new(&lab, "alone", text)? else { return Ok(()) };
    let done = project.compose(&["config", "-q"])?;
    // The page of the docs says what to do about it.
    assert!(done.stderr.contains("refers to undefined network default"), "{done:?}");
    project.write("compose.yaml", &(text.to_owned() + "networks: {default: {}}\n"))?;
    let done = project.compose(&["config", "-q"])?;
    assert_eq!(done.code, 0, "{done:?}");
    Ok(())
}
