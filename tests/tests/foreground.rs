//! What a terminal, `-a`, `--sig-proxy` and the image itself say of a run in the foreground: as
//! `docker run` without us has it.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use mirrord_tests::background::{Background, finish};
use mirrord_tests::lab::{DEBIAN, Lab, PROBE};
use mirrord_tests::scene::Scene;
use mirrord_tests::terminal::Terminal;
use mirrord_tests::wait;

/// The line of a container called `plain`, without mirrord.
fn plain(lab: &Lab, flags: &[&str], image: &str, words: &[&str]) -> Command {
    let name = lab.name("plain");
    lab.adopt(&name);
    let mut command = lab.docker.command();
    command.args(["run", "--name", &name]).args(flags).arg(image).args(words);
    command
}

/// The same line of a container called `app`, with mirrord in front.
fn ours(
    scene: &Scene,
    background: &Background,
    flags: &[&str],
    image: &str,
    words: &[&str],
) -> Command {
    let name = scene.lab.name("app");
    scene.lab.adopt(&name);
    let mirrord = scene.mirrord().with(["-q"]).kept().docker(flags.to_vec());
    background.of(mirrord).command(&name, image, words)
}

/// Both lines, the oracle first.
fn both(
    scene: &Scene,
    background: &Background,
    flags: &[&str],
    image: &str,
    words: &[&str],
) -> [(String, Command); 2] {
    let name = |name: &str| scene.lab.name(name);
    [
        (name("plain"), plain(scene.lab, flags, image, words)),
        (name("app"), ours(scene, background, flags, image, words)),
    ]
}

fn runs(lab: &Lab, name: &str) -> Result<bool> {
    Ok(lab.docker.inspect(name, "{{.State.Running}}")? == "true")
}

#[test]
fn a_terminal_that_is_left_by_its_keys_leaves_the_session_to_the_container() -> Result<()> {
    let Some(lab) = Lab::open("Ctrl-P Ctrl-Q")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let flags = ["-it", "--rm"];
    let name = lab.name("app");
    lab.adopt(&name);
    let mirrord = background.of(scene.mirrord().docker(["-it"]));
    let mut terminal = Terminal::start(&mirrord.command(&name, DEBIAN, &["bash", "--norc"]))?;
    terminal.until("# ")?;
    terminal.type_in("\x10\x11")?;
    assert_eq!(terminal.end()?, 0, "{}", terminal.screen());
    terminal.until("the container goes on, and session ")?;
    let mut oracle = Terminal::start(&plain(&lab, &flags, DEBIAN, &["bash", "--norc"]))?;
    oracle.until("# ")?;
    oracle.type_in("\x10\x11")?;
    assert_eq!(oracle.end()?, 0);

    let session = background.session("app")?;
    assert_eq!(session["detached"], true, "{session:#}");
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let mut attach = lab.docker.command();
    attach.args(["attach", &name]);
    let mut again = Terminal::start(&attach)?;
    again.type_in("\nnc -z client 7000 && echo reached-$((6*7))\n")?;
    again.until("reached-42")?;
    again.type_in("exit 5\n")?;
    assert_eq!(again.end()?, 5);
    background.until_gone(session["session"].as_str().unwrap_or(""))?;
    background.until_empty()
}

#[test]
fn a_terminal_that_changes_its_size_does_so_for_the_app() -> Result<()> {
    let Some(lab) = Lab::open("a resize")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    for (name, command) in both(&scene, &background, &["-it", "--rm"], DEBIAN, &["bash", "--norc"])
    {
        let mut terminal = Terminal::start(&command)?;
        terminal.until("# ")?;
        terminal.resize(41, 97)?;
        wait::until_true("the new size", || {
            terminal.type_in("stty size\n")?;
            Ok(terminal.screen().contains("41 97"))
        })
        .with_context(|| format!("{name}: {}", terminal.screen()))?;
        // Raw: the app has the key, not the line discipline of this side.
        let waits = "trap 'echo int-$((6*7)); exit 4' INT; echo armed-$((6*7)); sleep 60 & wait";
        terminal.type_in(&format!("exec bash -c \"{waits}\"\n").replace("$((", "\\$(("))?;
        terminal.until("armed-42")?;
        terminal.type_in("\x03")?;
        terminal.until("int-42")?;
        assert_eq!(terminal.end()?, 4, "{name}");
    }
    Ok(())
}

#[test]
fn a_client_that_keeps_its_signals_to_itself_leaves_the_container_running() -> Result<()> {
    let Some(lab) = Lab::open("--sig-proxy=false")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let flags = ["--sig-proxy=false"];
    let mut ends = Vec::new();
    for (name, command) in both(&scene, &background, &flags, PROBE, &["wait"]) {
        let mut terminal = Terminal::start(&command)?;
        terminal.until("\"waiting\"")?;
        // It takes docker's client more than one.
        let ended = wait::until("the client's end", || {
            terminal.type_in("\x03")?;
            std::thread::sleep(std::time::Duration::from_millis(200));
            Ok(terminal.child.try_wait()?)
        })?;
        ends.push((mirrord_tests::mirrord::code_of(ended), runs(&lab, &name)?));
    }
    assert_eq!(ends[0], ends[1], "(code, whether the container runs): docker's, ours");
    if ends[1].1 {
        assert_eq!(background.session("app")?["state"], "up");
    }
    lab.docker.run(&["rm", "-f", &lab.name("app")])?;
    background.until_empty()
}

#[test]
fn what_is_attached_is_what_was_asked_for() -> Result<()> {
    let Some(lab) = Lab::open("--attach")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let words = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    for flags in [&["-a", "stdout"][..], &["-a", "stderr"], &["-a", "stdout", "-a", "stderr"]] {
        let flags = [&["--rm"], flags].concat();
        let [expected, done] =
            both(&scene, &background, &flags, DEBIAN, &words).map(|(_, command)| finish(&command));
        let (expected, done) = (expected?, done?);
        let told = |done: &mirrord_tests::mirrord::Finished| {
            (done.code, done.stdout.clone(), done.stderr.clone())
        };
        assert_eq!(told(&done), told(&expected), "{flags:?}");
    }
    Ok(())
}

#[test]
fn an_app_that_is_restarted_from_elsewhere_goes_on_in_its_session() -> Result<()> {
    let Some(lab) = Lab::open("docker restart of a foreground run")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let words = ["serve", "http", "0.0.0.0:80", "mine"];
    let mut codes = Vec::new();
    let flags = ["--stop-timeout", "1"];
    let mirrord = background.of(scene.mirrord().with(["--steal"]).kept().docker(flags));
    let mut session = mirrord.start("app", PROBE, &words)?;
    scene.until_answered_by("mine", 80)?;
    let mut oracle = plain(&lab, &flags, PROBE, &words).spawn()?;
    wait::until_true("the oracle", || runs(&lab, &lab.name("plain")))?;
    for name in ["plain", "app"] {
        lab.docker.run(&["restart", &lab.name(name)])?;
    }
    codes.push(mirrord_tests::mirrord::code_of(oracle.wait()?));
    codes.push(session.wait()?);
    assert_eq!(codes[0], codes[1], "docker's, ours: {}", session.stderr());
    assert!(runs(&lab, &lab.name("plain"))?, "the oracle goes on");
    scene.until_answered_by("mine", 80)?;
    assert_eq!(background.session("app")?["detached"], true);
    lab.docker.run(&["rm", "-f", &lab.name("app")])?;
    background.until_empty()
}

#[test]
fn anonymous_volumes_go_with_the_container_as_docker_has_it() -> Result<()> {
    let Some(lab) = Lab::open("--rm and volumes")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let kept = lab.volume("kept")?;
    let named = format!("{kept}:/kept");
    let flags = ["--rm", "-v", "/anonymous", "-v", &named];
    for (name, command) in both(&scene, &background, &flags, PROBE, &["wait"]) {
        let mut run = command;
        let mut child = run.stdout(Stdio::null()).spawn()?;
        let mounts = wait::until("the mounts", || {
            let template = "{{range .Mounts}}{{.Name}} {{.Destination}}\n{{end}}";
            Ok(Some(lab.docker.inspect(&name, template)?)
                .filter(|_| runs(&lab, &name).is_ok_and(|runs| runs)))
        })?;
        let line = mounts.lines().find(|line| line.ends_with(" /anonymous"));
        let volume = line.and_then(|line| line.split(' ').next()).context(mounts.clone())?;
        lab.docker.run(&["volume", "inspect", volume])?;
        lab.docker.run(&["stop", &name])?;
        child.wait()?;
        assert!(lab.docker.run(&["volume", "inspect", volume]).is_err(), "{name} left {volume}");
    }
    lab.docker.run(&["volume", "inspect", &kept]).map(drop)
}

#[test]
fn the_images_own_health_check_entrypoint_and_stop_signal_hold() -> Result<()> {
    let Some(lab) = Lab::open("what an image says")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let image = format!("mirrord-apps/{}", lab.name("says"));
    let raw = lab.container("raw").start(DEBIAN, &["true"])?;
    let changes = [
        "ENTRYPOINT [\"sh\", \"-c\"]",
        "CMD [\"trap 'exit 9' USR1; touch /fit; while :; do sleep 0.1; done\"]",
        "STOPSIGNAL SIGUSR1",
        "HEALTHCHECK --interval=1s CMD test -e /fit",
    ];
    let changes = changes.iter().flat_map(|change| ["--change", change]);
    let words: Vec<&str> =
        std::iter::once("commit").chain(changes).chain([raw.name.as_str(), &image]).collect();
    lab.docker.run(&words)?;
    let checked = check_image(&scene, &background, &image);
    lab.docker.run(&["rm", "-f", &lab.name("app"), &lab.name("plain")])?;
    background.until_empty()?;
    lab.docker.run(&["rmi", "-f", &image])?;
    checked
}

fn check_image(scene: &Scene, background: &Background, image: &str) -> Result<()> {
    let lab = scene.lab;
    for (name, command) in both(scene, background, &["-d"], image, &[]) {
        assert_eq!(finish(&command)?.code, 0, "{name}");
        wait::until_true("health", || {
            Ok(lab.docker.inspect(&name, "{{.State.Health.Status}}")? == "healthy")
        })
        .with_context(|| name.clone())?;
        lab.docker.run(&["stop", &name])?;
        assert_eq!(lab.docker.inspect(&name, "{{.State.ExitCode}}")?, "9", "{name}");
    }
    Ok(())
}
