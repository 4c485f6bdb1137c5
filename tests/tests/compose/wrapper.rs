//! `mirrord docker compose …`, in front of a line that works without it.

use std::fs;

use anyhow::{Context, Result, ensure};
use mirrord_tests::background::finish;
use mirrord_tests::compose::Project;
use mirrord_tests::lab::Lab;
use mirrord_tests::mirrord::binary;
use mirrord_tests::scene::Scene;
use mirrord_tests::terminal::Terminal;
use mirrord_tests::{toolbox, wait};

/// A project of two services and something that they wait for; `keys` are the first one's.
fn shop(keys: &str) -> String {
    let probe = toolbox::path("probe");
    let service = |name: &str, port: u16| {
        format!(
            "    image: mirrord-apps/debian
    init: true
    volumes: ['{probe}:/probe:ro']
    command: /probe serve http 0.0.0.0:{port} {name}
"
        )
    };
    format!(
        "services:
  orders:
{}    depends_on: {{db: {{condition: service_healthy}}}}
    environment: {{GREETING: own, MONEY: a$$b}}
    ports: ['127.0.0.1::80']
{keys}
  db:
{}    healthcheck: {{test: [CMD, curl, -sf, 'http://localhost:5432'], interval: 1s, retries: 30}}
",
        service("mine", 80),
        service("db", 5432),
    )
}

fn stands_for(target: &str) -> String {
    format!("    x-mirrord: {{target: '{target}', steal: true}}")
}

#[test]
fn a_line_that_works_works_with_the_service_in_the_targets_place() -> Result<()> {
    let Some(lab) = Lab::open("mirrord docker compose up")? else { return Ok(()) };
    let scene = Scene::open_with(&lab, &["-e", "GREETING=hello", "-e", "LINES=a\nb"])?;
    scene.client().must("serve http 0.0.0.0:81 client")?;
    let file = shop(&stands_for(&scene.target.target()));
    let Some(project) = Project::new(&lab, "wrap", &file)? else { return Ok(()) };
    project.wrapped(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    let outgoing = project.fetch("orders", "http://client:81/")?;
    assert!(outgoing.contains(&format!("\"peer\":\"{}:", scene.address)), "{outgoing}");
    assert!(project.fetch("orders", "http://db:5432/")?.contains("\"name\":\"db\""));
    assert!(project.fetch("db", "http://orders/")?.contains("\"name\":\"mine\""));
    let sidecar = project.sidecar("mirrord-orders");
    assert!(project.published(&sidecar, "80/tcp")?.contains("\"name\":\"mine\""));
    let variable = |name: &str| project.exec("orders", &["printenv", name]);
    assert_eq!(variable("GREETING")?, "own\n", "the user's own stands above the target's");
    assert_eq!(variable("MONEY")?, "a$b\n");
    assert_eq!(variable("LINES")?, "a\nb\n");
    let session = project.session()?;
    project.wrapped(&["restart", "orders"])?;
    scene.until_answered_by("mine", 80).context("after a restart")?;
    project.wrapped(&["up", "-d"])?;
    scene.until_answered_by("mine", 80).context("after a second up")?;
    assert_eq!(project.session()?, session);
    assert!(project.wrapped(&["ps"])?.contains(&project.container("orders")));
    assert!(project.wrapped(&["logs", "orders"])?.contains("\"listening\":\"0.0.0.0:80\""));
    assert_eq!(project.wrapped(&["exec", "-T", "orders", "echo", "x"])?, "x\n");
    project.wrapped(&["stop"])?;
    assert_eq!(scene.answers(80)?["name"], "original");
    project.wrapped(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    project.wrapped(&["down", "-v"])?;
    assert_eq!(scene.answers(80)?["name"], "original");
    assert_eq!(fs::read_to_string(project.path("compose.yaml"))?, file, "nobody edits it");
    project.until_nothing_is_left()
}

#[test]
fn several_services_have_a_session_each_and_compose_alone_can_end_them() -> Result<()> {
    let Some(lab) = Lab::open("two services of compose")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let other = lab.container("other").on(&scene.inner).alias("other").probe()?;
    other.probe().must("serve http 0.0.0.0:5432 original")?;
    let file = shop(&stands_for(&scene.target.target())) + &stands_for(&other.target());
    let Some(project) = Project::new(&lab, "both", &file)? else { return Ok(()) };
    project.wrapped(&["up", "-d"])?;
    scene.until_answered_by("mine", 80)?;
    let ask = format!("ask {}:5432 http /", other.address()?);
    assert_eq!(scene.client().must(&ask)?["answer"]["name"], "db");
    assert_eq!(project.background.status()?.len(), 2);
    assert!(project.fetch("orders", "http://db:5432/")?.contains("\"name\":\"db\""));
    let done = project.compose(&["down", "-v"])?;
    project.background.until_empty().context("both end without their apps")?;
    ensure!(scene.answers(80)?["name"] == "original");
    // Compose may have looked at the networks before the sidecars had left them.
    ensure!(done.code == 0 || done.stderr.contains("active endpoints"), "{done:?}");
    project.must(&["down", "-v"])?;
    project.until_nothing_is_left()
}

#[test]
fn a_service_is_named_by_the_line_whatever_the_project_is_made_from() -> Result<()> {
    let Some(lab) = Lab::open("files and profiles")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let target = scene.target.target();
    let Some(project) = Project::new(&lab, "made", "include: [part.yaml]\n")? else {
        return Ok(());
    };
    project.write("base.yaml", &shop(""))?;
    project.write(
        "part.yaml",
        "services:
  orders:
    extends: {file: base.yaml, service: orders}
    profiles: [all]
    networks: {default: {aliases: [api]}}
  db: {extends: {file: base.yaml, service: db}}
",
    )?;
    project.write("more.yaml", "services: {orders: {environment: {WORD: '${WORD}'}}}\n")?;
    project.write("words.env", "WORD=from-the-file\n")?;
    let options = ["-t", &target, "--steal", "--service", "orders"];
    let flags =
        ["-f", "compose.yaml", "-f", "more.yaml", "--env-file", "words.env", "--profile", "all"];
    let done = project.mirrord(&options, &[&flags[..], &["up", "-d"]].concat())?;
    ensure!(done.code == 0, "{done:?}");
    scene.until_answered_by("mine", 80)?;
    assert_eq!(project.exec("orders", &["printenv", "WORD"])?, "from-the-file\n");
    assert!(project.fetch("db", "http://api/")?.contains("\"name\":\"mine\""));
    let done = project.mirrord(&options, &[&flags[..], &["down", "-v"]].concat())?;
    ensure!(done.code == 0, "{done:?}");
    project.until_nothing_is_left()
}

#[test]
fn a_run_has_the_targets_variables_and_says_what_the_app_says() -> Result<()> {
    let Some(lab) = Lab::open("mirrord docker compose run")? else { return Ok(()) };
    let words = ["-e", "GREETING=hello", "-e", "LINES=a\nb", "-e", "DOCKER_HOST=x\ny"];
    let scene = Scene::open_with(&lab, &words)?;
    scene.client().must("serve http 0.0.0.0:81 client")?;
    let file = shop(&stands_for(&scene.target.target()));
    let Some(project) = Project::new(&lab, "run", &file)? else { return Ok(()) };
    let script = "echo $GREETING; echo \"$LINES\"; curl -sS -m 9 http://client:81/; exit 7";
    let run = ["run", "--rm", "-T", "orders", "sh", "-c", script];
    let done = project.mirrord(&[], &run)?;
    assert_eq!(done.code, 7, "{done:?}");
    assert!(done.stdout.starts_with("own\na\nb\n"), "{done:?}");
    assert!(done.stdout.contains(&format!("\"peer\":\"{}:", scene.address)), "{done:?}");
    project.background.until_empty()?;
    let refused = project.mirrord(&[], &["run", "-p", "1:1", "orders", "true"])?;
    assert!(refused.stderr.contains("cannot publish ports"), "{refused:?}");
    project.wrapped(&["down"])?;
    project.until_nothing_is_left()
}

#[test]
fn ctrl_c_is_composes_own() -> Result<()> {
    let Some(lab) = Lab::open("Ctrl-C of mirrord docker compose up")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let file = shop(&stands_for(&scene.target.target()));
    let Some(project) = Project::new(&lab, "stop", &file)? else { return Ok(()) };
    let program = mirrord_tests::mirrord::binary().to_string_lossy().into_owned();
    let mut terminal = Terminal::start(&project.command(&program, &["docker", "compose", "up"]))?;
    scene.until_answered_by("mine", 80)?;
    terminal.type_in("\x03")?;
    assert_eq!(terminal.end()?, 130);
    assert_eq!(scene.answers(80)?["name"], "original");
    project.background.until_empty()?;
    project.wrapped(&["down"])?;
    project.until_nothing_is_left()
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_started() -> Result<()> {
    let Some(lab) = Lab::open("refusals of mirrord docker compose")? else { return Ok(()) };
    let Some(project) = Project::new(&lab, "refused", "")? else { return Ok(()) };
    let here = |more: &str| shop(&format!("{}\n{more}", stands_for("container/x")));
    let keyed = |keys: &str| shop(&format!("    x-mirrord: {{{keys}}}"));
    let none: &[&str] = &[];
    let up: &[&str] = &["up", "-d"];
    let lines = [
        (here("    scale: 2"), none, up, "orders is to run 2 times", "hint: let it run once"),
        (here(""), none, &["up", "-d", "--scale", "orders=2"], "orders is to run 2 times", "hint"),
        (
            here("    network_mode: none\n").replace("    ports: ['127.0.0.1::80']\n", ""),
            none,
            up,
            "has network_mode: none",
            "hint: leave network_mode out",
        ),
        (here("    links: [db]"), none, up, "service orders has links", "by name"),
        (
            keyed("taget: container/x"),
            none,
            up,
            "compose.yaml:10:17: there is no key taget",
            "did you mean target?",
        ),
        (keyed("target: [1]"), none, up, "compose.yaml:10:25: target must be", "here is a list"),
        (keyed("steal: maybe"), none, up, "option steal must be true or false", "\"maybe\""),
        (
            shop("    x-mirrord: yes"),
            none,
            up,
            "x-mirrord of service orders must be an object",
            "hint: for",
        ),
        (shop(""), none, up, "no service of the project stands in a target's place", "--service"),
        (shop(""), &["-t", "container/x"], up, "but not by which service", "add --service NAME"),
        (
            shop(""),
            &["--service", "order"],
            up,
            "the project has no service \"order\"",
            "did you mean orders?",
        ),
        (
            "services: 5".to_owned(),
            none,
            up,
            "'docker compose config' failed",
            "services must be a mapping",
        ),
    ];
    for (file, options, words, sentence, detail) in lines {
        project.write("compose.yaml", &file)?;
        let done = project.mirrord(options, words)?;
        assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{sentence}: {done:?}");
        assert!(done.stderr.contains(sentence), "{sentence}: {}\n{file}", done.stderr);
        assert!(done.stderr.contains(detail), "{detail}: {}", done.stderr);
        project.until_nothing_is_left()?;
    }
    let run = project.command(
        &mirrord_tests::mirrord::binary().to_string_lossy(),
        &["--service", "x", "docker", "run", "y"],
    );
    let done = mirrord_tests::background::finish(&run)?;
    assert_eq!(done.code, 125, "{done:?}");
    assert!(done.stderr.contains("--service names a service of a compose project"), "{done:?}");
    Ok(())
}

#[test]
fn the_overlay_can_be_seen_and_read_by_compose() -> Result<()> {
    let Some(lab) = Lab::open("the overlay")? else { return Ok(()) };
    let file = shop(&stands_for("container/x"));
    let Some(project) = Project::new(&lab, "seen", &file)? else { return Ok(()) };
    let overlay = project.mirrord(&["--explain"], &["up"])?;
    assert_eq!((overlay.code, overlay.stderr.as_str()), (0, ""), "{overlay:?}");
    project.write("overlay.yaml", &overlay.stdout)?;
    let both = project.must(&["-f", "compose.yaml", "-f", "overlay.yaml", "config"])?;
    assert_eq!(project.wrapped(&["config"])?, both, "the same is given to compose");
    assert!(both.contains(&format!("network_mode: container:{}-mirrord-orders", project.name)));
    project.until_nothing_is_left()
}

#[test]
fn watch_and_logs_follow_a_service_in_the_targets_place() -> Result<()> {
    let Some(lab) = Lab::open("watch and logs -f")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let sources = tempfile::Builder::new().prefix("watched").tempdir()?;
    let text = format!(
        "services:
  app:
    image: mirrord-apps/debian
    init: true
    command: sh -c 'mkdir -p /src; while sleep 1; do ls /src; done'
    x-mirrord: {{target: {}}}
    develop: {{watch: [{{action: sync, path: {}, target: /src}}]}}
",
        scene.target.target(),
        sources.path().display()
    );
    let Some(project) = Project::new(&lab, "watched", &text)? else { return Ok(()) };
    project.wrapped(&["up", "-d"])?;
    let program = binary().to_string_lossy().into_owned();
    let command = project.command(&program, &["docker", "compose", "watch"]);
    let mut watching = Terminal::start(&command)?;
    watching.until("Watch enabled")?;
    fs::write(sources.path().join("second"), "words")?;
    wait::until("a file to come along", || project.exec("app", &["cat", "/src/second"]).map(Some))?;
    watching.type_in("\x03")?;
    watching.end()?;
    let words = ["4", &program, "docker", "compose", "logs", "-f", "app"];
    let followed = finish(&project.command("timeout", &words))?;
    assert!(followed.stdout.contains("second"), "{followed:?}");
    project.wrapped(&["down", "-v", "-t", "1"])?;
    project.until_nothing_is_left()
}
