//! Dev containers in a target's place, made by the tool that editors call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use mirrord_tests::compose::Project;
use mirrord_tests::lab::{DEBIAN, Lab};
use mirrord_tests::mirrord::Finished;
use mirrord_tests::scene::Scene;
use mirrord_tests::{toolbox, wait};
use serde_json::Value;

/// Answers on a port as `mine`.
const SERVER: &str = "import socket, sys
server = socket.create_server(('', int(sys.argv[1])))
while True:
    client, _ = server.accept()
    client.recv(1000)
    client.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n{\"name\":\"mine\"}')
    client.close()";

/// A folder that an editor would open.
struct Workspace<'lab> {
    project: Project<'lab>,
    folder: PathBuf,
}

impl<'lab> Workspace<'lab> {
    /// From one of the templates, as an editor would fill it in; `None` (and a loud line) where the
    /// tool is missing.
    fn of(template: &str, scene: &Scene<'lab>, test: &str) -> Result<Option<Self>> {
        if !toolbox::all(test, &["devcontainer"])? {
            return Ok(None);
        }
        let Some(project) = Project::new(scene.lab, "dev", "services: {}")? else {
            return Ok(None);
        };
        let folder = project.path(&project.name);
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/devcontainer");
        let target = scene.target.target();
        let fill = |text: String| {
            text.replace("${templateOption:target}", &target)
                .replace("${templateOption:traffic}", "steal")
                .replace("${templateOption:image}", DEBIAN)
        };
        let to = folder.join(".devcontainer");
        copy(&ours.join("templates/src").join(template).join(".devcontainer"), &to, &fill)?;
        copy(&ours.join("features/src/mirrord"), &to.join("mirrord"), &|text| text)?;
        Ok(Some(Self { project, folder }))
    }

    /// Has another text in the place of one of `devcontainer.json`.
    fn edit(&self, from: &str, to: &str) -> Result<()> {
        let path = self.folder.join(".devcontainer/devcontainer.json");
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{from:?} is not in {text}");
        Ok(fs::write(path, text.replace(from, to))?)
    }

    fn run(&self, words: &[&str]) -> Result<Finished> {
        let folder = self.folder.to_string_lossy();
        let (verb, rest) = words.split_first().context("a word")?;
        let words = [&[*verb, "--workspace-folder", &folder], rest].concat();
        let command: Command = self.project.command(&toolbox::path("devcontainer"), &words);
        mirrord_tests::background::finish(&command)
    }

    /// One at a time: the tool builds all its Features under one name.
    fn try_up(&self, more: &[&str]) -> Result<Finished> {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        self.run(&[&["up", "--buildkit", "never"], more].concat())
    }

    /// Brings the dev container up: its id, and what was said.
    fn up(&self, more: &[&str]) -> Result<(String, String)> {
        let done = self.try_up(more)?;
        ensure!(done.code == 0, "{done:?}");
        let last = done.stdout.lines().last().context("no outcome")?;
        let outcome: Value = serde_json::from_str(last).with_context(|| last.to_owned())?;
        ensure!(outcome["outcome"] == "success", "{done:?}");
        let id = outcome["containerId"].as_str().context("no id")?.to_owned();
        Ok((id, done.stderr))
    }

    fn exec(&self, words: &[&str]) -> Result<String> {
        let done = self.run(&[&["exec"], words].concat())?;
        ensure!(done.code == 0, "{done:?}");
        Ok(done.stdout)
    }

    fn serve(&self, port: &str) -> Result<()> {
        let line = format!("setsid python3 -c \"$0\" {port} >/dev/null 2>&1 </dev/null &");
        self.exec(&["sh", "-c", &line, SERVER]).map(drop)
    }
}

fn copy(from: &Path, to: &Path, fill: &dyn Fn(String) -> String) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let (path, to) = (entry?.path(), to);
        let copied = to.join(path.file_name().context("a name")?);
        fs::write(&copied, fill(fs::read_to_string(&path)?))?;
        fs::set_permissions(copied, fs::metadata(path)?.permissions())?;
    }
    Ok(())
}

fn scene(lab: &Lab) -> Result<Scene<'_>> {
    let scene = Scene::open_with(lab, &["-e", "WHO=far", "--hostname", "far"])?;
    scene.client().must("serve http 0.0.0.0:81 client")?;
    Ok(scene)
}

/// What stands in the target's place is reached there, and reaches what the target reaches.
fn stands(scene: &Scene<'_>, workspace: &Workspace<'_>) -> Result<()> {
    let seen = workspace.exec(&["sh", "-c", "hostname; echo $WHO; curl -sS http://client:81/"])?;
    let lines: Vec<&str> = seen.lines().collect();
    ensure!(lines[..2] == ["far", "far"], "{seen}");
    ensure!(lines[2].contains(&format!("\"peer\":\"{}:", scene.address)), "{seen}");
    workspace.serve("80")?;
    scene.until_answered_by("mine", 80).map(drop)
}

/// Through its whole life: up, again, stopped and up, rebuilt, and removed by `remove`.
fn lives(
    scene: &Scene<'_>,
    workspace: &Workspace<'_>,
    remove: &dyn Fn(&str) -> Result<()>,
) -> Result<()> {
    let docker = &scene.lab.docker;
    workspace.edit(r#"{"./mirrord": {}}"#, r#"{"./mirrord": {"reach": "client:81"}}"#)?;
    let (first, said) = workspace.up(&[])?;
    ensure!(said.contains("in place of far, and client:81 answers"), "{said}");
    stands(scene, workspace)?;
    let privileges = "{{.HostConfig.Privileged}} {{.HostConfig.CapAdd}}";
    assert_eq!(docker.inspect(&first, privileges)?, "false []");

    let (again, _) = workspace.up(&[])?;
    assert_eq!(again, first, "an editor that opens it once more finds it");
    scene.until_answered_by("mine", 80)?;

    docker.run(&["stop", "-t", "1", &first])?;
    workspace.project.background.until_empty()?;
    assert_eq!(scene.answers(80)?["name"], "original");
    workspace.up(&[])?;
    stands(scene, workspace)?;

    let (rebuilt, _) = workspace.up(&["--remove-existing-container"])?;
    stands(scene, workspace)?;
    remove(&rebuilt)?;
    workspace.project.background.until_empty()?;
    assert_eq!(scene.answers(80)?["name"], "original");
    let label = format!("label=devcontainer.local_folder={}", workspace.folder.display());
    ensure!(docker.run(&["ps", "-aq", "--filter", &label])?.is_empty());
    Ok(())
}

#[test]
fn a_dev_container_of_an_image_stands_in_the_targets_place() -> Result<()> {
    let test = "a dev container of an image";
    let Some(lab) = Lab::open(test)? else { return Ok(()) };
    let scene = scene(&lab)?;
    let Some(workspace) = Workspace::of("image", &scene, test)? else { return Ok(()) };
    lives(&scene, &workspace, &|id| lab.docker.run(&["rm", "-f", id]).map(drop))
}

#[test]
fn a_dev_container_of_a_dockerfile_publishes_ports_by_its_sidecar() -> Result<()> {
    let test = "a dev container of a Dockerfile";
    let Some(lab) = Lab::open(test)? else { return Ok(()) };
    let scene = scene(&lab)?;
    let Some(workspace) = Workspace::of("dockerfile", &scene, test)? else { return Ok(()) };
    workspace.edit(" up --env-file", " up -p 127.0.0.1:28941:3000 --env-file")?;
    let (id, _) = workspace.up(&[])?;
    stands(&scene, &workspace)?;
    workspace.serve("3000")?;
    // What an editor forwards, it reaches from inside.
    let inside = workspace.exec(&["curl", "-sS", "http://localhost:3000/"])?;
    ensure!(inside.contains("mine"), "{inside}");
    wait::until("the published port", || {
        let asked = Command::new("curl").args(["-sS", "http://127.0.0.1:28941/"]).output()?;
        Ok(String::from_utf8_lossy(&asked.stdout).contains("mine").then_some(()))
    })?;
    lab.docker.run(&["rm", "-f", &id])?;
    workspace.project.background.until_empty()
}

#[test]
fn a_dev_container_of_a_compose_project_is_one_of_its_services() -> Result<()> {
    let test = "a dev container of a compose project";
    let Some(lab) = Lab::open(test)? else { return Ok(()) };
    let scene = scene(&lab)?;
    let Some(workspace) = Workspace::of("compose", &scene, test)? else { return Ok(()) };
    let project = &workspace.project.name;
    lives(&scene, &workspace, &|_| {
        let file = workspace.folder.join(".devcontainer/compose.yaml");
        let words = ["-f", &file.to_string_lossy(), "-p", project, "down"];
        workspace.project.must(&words).map(drop)
    })
}

#[test]
fn a_dev_container_with_a_network_of_its_own_is_told() -> Result<()> {
    let test = "a dev container without its target";
    let Some(lab) = Lab::open(test)? else { return Ok(()) };
    let scene = scene(&lab)?;
    let Some(workspace) = Workspace::of("image", &scene, test)? else { return Ok(()) };
    workspace.edit("--network=container:${localWorkspaceFolderBasename}-target", "--init")?;
    let done = workspace.try_up(&[])?;
    let said = done.stdout + &done.stderr;
    ensure!(said.contains("this dev container has a network of its own"), "{said}");
    ensure!(said.contains("hint: runArgs"), "{said}");
    let label = format!("label=devcontainer.local_folder={}", workspace.folder.display());
    let ids = lab.docker.run(&["ps", "-aq", "--filter", &label])?;
    lab.docker.run(&[&["rm", "-f"], &ids.lines().collect::<Vec<_>>()[..]].concat())?;
    // Nobody has joined the session: it would wait for somebody who does.
    let name = format!("{}-target", workspace.project.name);
    let ended = workspace.project.command("mirrord", &["down", &name]).output()?;
    ensure!(ended.status.success(), "{ended:?}");
    workspace.project.background.until_empty()
}
