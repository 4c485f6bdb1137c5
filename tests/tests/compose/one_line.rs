//! A provider on the app's own service: compose tells what it is, and has its container as any other.

use anyhow::{Result, ensure};
use mirrord_tests::compose::Project;
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::terminal::Terminal;
use mirrord_tests::toolbox;

fn file(target: &str, more: &str) -> String {
    let probe = toolbox::path("probe");
    format!(
        "services:
  orders:
    image: mirrord-apps/debian
    init: true
    volumes: ['{probe}:/probe:ro', 'rows:/var/rows']
    command: /probe serve http 0.0.0.0:80 mine
    environment: {{OWN: own, GREETING: mine}}
    ports: ['127.0.0.1::80']
    depends_on: {{peer: {{condition: service_healthy}}}}
    provider: {{type: mirrord, options: {{target: '{target}', steal: true}}}}
{more}  peer:
    image: mirrord-apps/debian
    init: true
    volumes: ['{probe}:/probe:ro']
    command: /probe serve http 0.0.0.0:8000 peer
    healthcheck: {{test: [CMD, curl, -sf, 'http://localhost:8000'], interval: 1s, retries: 30}}
volumes: {{rows: {{}}}}
"
    )
}

#[test]
fn one_line_puts_a_service_in_the_targets_place_and_all_of_compose_knows_it() -> Result<()> {
    let Some(lab) = Lab::open("a provider on the app's own service")? else { return Ok(()) };
    let words = ["-e", "GREETING=far", "-e", "PLACE=far", "-e", "LINES=a\nb$$c"];
    let scene = Scene::open_with(&lab, &words)?;
    scene.client().must("serve http 0.0.0.0:81 client")?;
    let file = file(&scene.target.target(), "");
    let Some(project) = Project::new(&lab, "line", &file)? else { return Ok(()) };
    project.must(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    let started =
        |service: &str| lab.docker.inspect(&project.container(service), "{{.State.StartedAt}}");
    ensure!(started("orders")? > started("peer")?, "after what it depends on");
    ensure!(project.fetch("peer", "http://orders/")?.contains("mine"), "a peer, by its name");
    ensure!(project.fetch("orders", "http://peer:8000/")?.contains("peer"));
    let outgoing = project.fetch("orders", "http://client:81/")?;
    ensure!(outgoing.contains(&format!("\"peer\":\"{}:", scene.address)), "{outgoing}");
    ensure!(project.published(&project.sidecar("orders"), "80")?.contains("mine"));
    let shown = "echo $OWN $GREETING $PLACE; printf '%s' \"$LINES\"";
    let env = project.exec("orders", &["sh", "-c", shown])?;
    assert_eq!(env.trim_end(), "own mine far\na\nb$$c", "those of the service stand above");

    let ps = project.must(&["ps", "--format", "{{.Service}} {{.State}}"])?;
    ensure!(ps.lines().any(|line| line == "orders running"), "{ps}");
    ensure!(project.must(&["logs", "orders"])?.contains("orders-1"), "logs");
    project.must(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    project.session()?;
    project.exec("orders", &["touch", "/var/rows/one"])?;

    project.must(&["stop"])?;
    assert_eq!(scene.answers(80)?["name"], "original");
    project.must(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    project.exec("orders", &["ls", "/var/rows/one"])?;
    project.must(&["down", "-v", "-t", "1"])?;
    assert_eq!(scene.answers(80)?["name"], "original");
    project.until_nothing_is_left()
}

#[test]
fn a_foreground_up_shows_its_lines_and_ctrl_c_ends_it() -> Result<()> {
    let Some(lab) = Lab::open("Ctrl-C, a provider on the app's own service")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let file = file(&scene.target.target(), "");
    let Some(project) = Project::new(&lab, "front", &file)? else { return Ok(()) };
    let mut terminal = Terminal::start(&project.command("docker", &["compose", "up"]))?;
    scene.until_answered_by("mine", 80)?;
    terminal.type_in("\x03")?;
    assert_eq!(terminal.end()?, 130);
    scene.until_answered_by("original", 80)?;
    project.must(&["down", "-v"])?;
    project.until_nothing_is_left()
}

#[test]
fn a_service_that_is_built_stands_there_as_well() -> Result<()> {
    let Some(lab) = Lab::open("a provider on a service that is built")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let text = format!(
        "services:
  orders:
    build: ./box
    init: true
    command: ['sh', '-c', 'echo built=$$BUILT; sleep 100']
    provider: {{type: mirrord, options: {{target: '{}'}}}}
",
        scene.target.target()
    );
    let Some(project) = Project::new(&lab, "built", &text)? else { return Ok(()) };
    project.write("box/Dockerfile", "FROM mirrord-apps/debian\nENV BUILT=yes\n")?;
    project.must(&["up", "-d"])?;
    ensure!(project.must(&["logs", "orders"])?.contains("built=yes"));
    project.must(&["down", "-t", "1", "--rmi", "local"])?;
    let _ = lab.docker.run(&["rmi", &project.sidecar("orders")]);
    project.until_nothing_is_left()
}

#[test]
fn what_cannot_be_run_so_is_said_and_nothing_is_left() -> Result<()> {
    let Some(lab) = Lab::open("errors of a provider on the app's own service")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let target = scene.target.target();
    let image = "    image: mirrord-apps/debian\n";
    for (name, text, said) in [
        (
            "secret",
            file(&target, "    secrets: [key]\n") + "secrets: {key: {file: ./compose.yaml}}\n",
            "secrets of a service that has a provider stand elsewhere",
        ),
        ("target", file("container/nobody-here", ""), "there is no container \"nobody-here\""),
        (
            "image",
            file(&target, "").replacen(
                image,
                "    image: mirrord-apps/none\n    pull_policy: never\n",
                1,
            ),
            "mirrord-apps/none",
        ),
    ] {
        let Some(project) = Project::new(&lab, name, &text)? else { return Ok(()) };
        let done = project.compose(&["up", "-d"])?;
        ensure!(done.code != 0 && done.stderr.contains(said), "{name}: {done:?}");
        project.must(&["down", "-v", "-t", "0"])?;
        project.until_nothing_is_left()?;
        assert_eq!(scene.answers(80)?["name"], "original");
    }
    Ok(())
}
