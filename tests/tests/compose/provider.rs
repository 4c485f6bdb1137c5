//! `provider: {type: mirrord}`, without a wrapper.

use anyhow::{Context, Result, ensure};
use mirrord_tests::compose::Project;
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::terminal::Terminal;
use mirrord_tests::{toolbox, wait};

/// A project whose service `orders` stands in the target's place, beside a peer.
pub fn file(target: &str, options: &str) -> String {
    file_with(target, options, "networks: {default: {aliases: [orders]}}")
}

/// The same, with other keys beside the provider.
pub fn file_with(target: &str, options: &str, keys: &str) -> String {
    let probe = toolbox::path("probe");
    format!(
        "services:
  cluster:
    provider:
      type: mirrord
      options: {{target: '{target}', steal: true{options}}}
    {keys}
  orders:
    image: mirrord-apps/debian
    init: true
    volumes: ['{probe}:/probe:ro']
    command: /probe serve http 0.0.0.0:80 mine
    environment: {{OWN: own}}
    depends_on: {{cluster: {{condition: service_started}}}}
    network_mode: container:${{COMPOSE_PROJECT_NAME}}-cluster
  peer:
    image: mirrord-apps/debian
    init: true
    volumes: ['{probe}:/probe:ro']
    command: /probe serve http 0.0.0.0:8000 peer
"
    )
}

#[test]
fn the_service_has_the_targets_traffic_network_and_variables_and_its_own_peers() -> Result<()> {
    let Some(lab) = Lab::open("a provider of compose")? else { return Ok(()) };
    let words = ["-e", "GREETING=hello", "-e", "LINES=a\nb"];
    let scene = Scene::open_with(&lab, &words)?;
    scene.client().must("serve http 0.0.0.0:81 client")?;
    let keys = "networks: {default: {aliases: [orders]}, back: {aliases: [api]}}
    ports: ['127.0.0.1::80']
    hostname: box";
    let file = file_with(&scene.target.target(), "", keys)
        + "    networks: [back]
networks: {default: {}, back: {name: '${COMPOSE_PROJECT_NAME}_Back'}}
";
    let Some(project) = Project::new(&lab, "shop", &file)? else { return Ok(()) };
    project.must(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    let outgoing = project.fetch("orders", "http://client:81/")?;
    assert!(outgoing.contains(&format!("\"peer\":\"{}:", scene.address)), "{outgoing}");
    assert!(outgoing.contains("\"name\":\"client\""), "{outgoing}");
    assert!(project.fetch("orders", "http://peer:8000/")?.contains("\"name\":\"peer\""));
    assert!(project.fetch("peer", "http://api/")?.contains("\"name\":\"mine\""));
    assert_eq!(project.exec("orders", &["hostname"])?, "box\n");
    let sidecar = project.sidecar("cluster");
    assert!(project.published(&sidecar, "80/tcp")?.contains("\"name\":\"mine\""));
    let variable = |name: &str| project.exec("orders", &["printenv", name]);
    assert_eq!(variable("GREETING")?, "hello\n");
    assert_eq!(variable("LINES")?, "a\nb\n");
    assert_eq!(variable("OWN")?, "own\n");
    project.must(&["down", "-v"])?;
    assert_eq!(scene.answers(80)?["name"], "original");
    project.until_nothing_is_left()
}

#[test]
fn a_second_up_keeps_the_session_and_one_that_asks_for_something_else_does_not() -> Result<()> {
    let Some(lab) = Lab::open("a second up")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let first = file(&scene.target.target(), "");
    let Some(project) = Project::new(&lab, "again", &first)? else { return Ok(()) };
    project.must(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    let (session, app) = (project.session()?, project.container("orders"));
    let container = lab.docker.inspect(&app, "{{.Id}}")?;
    project.must(&["up", "-d"])?;
    scene.until_answered_by("mine", 80).context("after the second up")?;
    assert_eq!(project.session()?, session);
    assert_ne!(lab.docker.inspect(&app, "{{.Id}}")?, container, "compose made it anew");
    project.must(&["restart", "orders"])?;
    scene.until_answered_by("mine", 80).context("after a restart")?;
    assert_eq!(project.session()?, session);
    project.write("compose.yaml", &file(&scene.target.target(), ", no_env: true"))?;
    project.must(&["up", "-d"])?;
    scene.until_answered_by("mine", 80).context("with other options")?;
    assert_ne!(project.session()?, session);
    project.background.until_gone(&session)
}

#[test]
fn a_stopped_service_gives_the_target_back_and_another_up_takes_it_again() -> Result<()> {
    let Some(lab) = Lab::open("compose stop and start")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let file = file(&scene.target.target(), "");
    let Some(project) = Project::new(&lab, "stopped", &file)? else { return Ok(()) };
    project.must(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    project.must(&["stop"])?;
    assert_eq!(scene.answers(80)?["name"], "original", "as soon as compose is done");
    project.background.until_empty()?;
    let refused = project.compose(&["start"])?;
    assert!(refused.stderr.contains("No such container"), "{refused:?}");
    project.must(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    let session = project.session()?;
    lab.docker.run(&["kill", &project.container("orders")])?;
    project.background.until_gone(&session).context("an app that ended by itself")?;
    assert_eq!(scene.answers(80)?["name"], "original");
    assert_eq!(project.must(&["ps", "--services"])?, "peer\n");
    project.must(&["down"])?;
    project.until_nothing_is_left()
}

#[test]
fn ctrl_c_of_a_foreground_up_ends_the_session() -> Result<()> {
    let Some(lab) = Lab::open("Ctrl-C of compose up")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let file = file(&scene.target.target(), "");
    let Some(project) = Project::new(&lab, "front", &file)? else { return Ok(()) };
    let command = project.command("docker", &["compose", "up"]);
    let mut terminal = Terminal::start(&command)?;
    scene.until_answered_by("mine", 80)?;
    let session = project.session()?;
    terminal.type_in("\x03")?;
    assert_eq!(terminal.end()?, 130);
    assert_eq!(scene.answers(80)?["name"], "original");
    project.background.until_gone(&session)?;
    project.must(&["down"])?;
    project.until_nothing_is_left()
}

#[test]
fn a_compose_that_is_killed_while_the_session_comes_up_leaves_nothing_of_it() -> Result<()> {
    let Some(lab) = Lab::open("compose killed early")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let file = file(&scene.target.target(), "");
    let Some(project) = Project::new(&lab, "early", &file)? else { return Ok(()) };
    let mut child = project.command("docker", &["compose", "up", "-d"]).spawn()?;
    let sidecar = project.sidecar("cluster");
    wait::until("the sidecar", || lab.docker.inspect(&sidecar, "{{.Id}}").map(Some))?;
    child.kill()?;
    child.wait()?;
    project.must(&["down", "-v"])?;
    project.until_nothing_is_left()?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn a_one_off_run_stands_in_the_targets_place_and_ends_its_session() -> Result<()> {
    let Some(lab) = Lab::open("compose run")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve http 0.0.0.0:81 client")?;
    let file = file(&scene.target.target(), "");
    let Some(project) = Project::new(&lab, "once", &file)? else { return Ok(()) };
    let words = ["run", "--rm", "-T", "orders", "curl", "-sS", "-m", "9", "http://client:81/"];
    let said = project.must(&words)?;
    ensure!(said.contains(&format!("\"peer\":\"{}:", scene.address)), "{said}");
    project.background.until_empty()?;
    project.must(&["down"])?;
    project.until_nothing_is_left()
}

#[test]
fn without_networks_of_its_own_it_is_in_the_projects_default_one() -> Result<()> {
    let Some(lab) = Lab::open("a provider without networks")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let file = file_with(&scene.target.target(), ", service: orders", "");
    let Some(project) = Project::new(&lab, "plain", &file)? else { return Ok(()) };
    project.must(&["up", "-d"])?;
    assert!(project.fetch("orders", "http://peer:8000/")?.contains("\"name\":\"peer\""));
    assert!(project.fetch("peer", "http://orders/")?.contains("\"name\":\"mine\""));
    scene.until_answered_by("mine", 80)?;
    project.must(&["down"])?;
    project.until_nothing_is_left()
}
