//! The app is a family of processes, and each of them is in the target's place.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::mirrord::binary;
use mirrord_tests::scene::Scene;
use mirrord_tests::skip;
use mirrord_tests::terminal::Terminal;
use mirrord_tests::toolbox::{PYTHON, path};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::Value;
use tempfile::TempDir;

/// A scene whose client serves on port 7000, and the words that dial it.
fn scene(lab: &Lab) -> Result<(Scene<'_>, Vec<String>)> {
    let scene = Scene::open(lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let words = [&path("app"), "dial", "block", &scene.client.address()?, "7000"];
    let words = words.map(str::to_owned).to_vec();
    Ok((scene, words))
}

/// Who the far end saw in the last line that a dialling program wrote.
fn seen(text: &str) -> Result<String> {
    let line = text.lines().last().context("nothing was written")?;
    let told: Value = serde_json::from_str(line).with_context(|| text.to_owned())?;
    let peer = told["answer"]["peer"].as_str().with_context(|| text.to_owned())?;
    Ok(peer.rsplit_once(':').map_or("", |(host, _)| host).to_owned())
}

/// Those words, started in another way, are seen as the target.
fn is_in_the_targets_place(test: &str, ahead: &[&str]) -> Result<()> {
    let Some(lab) = Lab::open(test)? else {
        return Ok(());
    };
    let (scene, words) = scene(&lab)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = scene.exec().with(["--no-incoming"]).finish(&[ahead, &words].concat())?;
    let who = seen(&done.stdout).with_context(|| format!("{done:?}"))?;
    ensure!(who == scene.address, "{test}: seen as {who}: {done:?}");
    Ok(())
}

/// By the C program that starts programs.
fn spawned(way: &str) -> Result<()> {
    is_in_the_targets_place(way, &[&path("app"), "spawn", way])
}

#[test]
fn fork_and_exec() -> Result<()> {
    spawned("fork")
}

#[test]
fn vfork_and_exec() -> Result<()> {
    spawned("vfork")
}

#[test]
fn vfork_and_exec_with_an_empty_environment() -> Result<()> {
    spawned("bare")
}

#[test]
fn clone_with_shared_memory_and_exec() -> Result<()> {
    spawned("clone")
}

#[test]
fn posix_spawn() -> Result<()> {
    spawned("spawn")
}

#[test]
fn posix_spawnp_with_an_empty_environment() -> Result<()> {
    spawned("spawnp")
}

#[test]
fn execvp() -> Result<()> {
    spawned("execvp")
}

#[test]
fn system_function() -> Result<()> {
    spawned("system")
}

#[test]
fn env_i() -> Result<()> {
    is_in_the_targets_place("env -i", &["env", "-i"])
}

#[test]
fn a_shell_and_its_child() -> Result<()> {
    is_in_the_targets_place("a shell", &["sh", "-c", "\"$@\"", "sh"])
}

#[test]
fn pythons_subprocess() -> Result<()> {
    let line = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:], env={}).returncode)";
    is_in_the_targets_place("subprocess", &[PYTHON, "-c", line])
}

#[test]
fn nodes_child_process() -> Result<()> {
    let line = "const [program, ...words] = process.argv.slice(1); \
                require('child_process').spawnSync(program, words, { stdio: 'inherit', env: {} })";
    is_in_the_targets_place("child_process", &["node", "-e", line])
}

#[test]
fn a_child_of_a_musl_program() -> Result<()> {
    is_in_the_targets_place("musl's child", &[&path("app-musl"), "spawn", "bare"])
}

/// The C program with a sanitizer in it, started by the words `ahead`.
fn sanitized(program: &str, ahead: &[&str], (name, value): (&str, &str)) -> Result<()> {
    let Some(lab) = Lab::open(program)? else {
        return Ok(());
    };
    let (scene, words) = scene(&lab)?;
    let program = path(program);
    let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let exec = scene.exec().with(["--no-incoming"]).env(name, value);
    let done = exec.finish(&[ahead, &[&program], &words].concat())?;
    let who = seen(&done.stdout).with_context(|| format!("{done:?}"))?;
    ensure!(who == scene.address && !done.stderr.contains("Sanitizer"), "{done:?}");
    Ok(())
}

#[test]
fn a_program_under_the_address_sanitizer() -> Result<()> {
    // It wants to be the first library of all; whoever preloads another one says so.
    sanitized("app-asan", &[], ("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0"))
}

#[test]
fn a_program_under_the_thread_sanitizer() -> Result<()> {
    // Its memory is where addresses would be drawn by lot.
    sanitized("app-tsan", &["setarch", "-R"], ("TSAN_OPTIONS", "halt_on_error=1"))
}

#[test]
fn an_allocator_of_ones_own_and_any_other_preloaded_library_are_kept() -> Result<()> {
    let Some(lab) = Lab::open("LD_PRELOAD of a process")? else {
        return Ok(());
    };
    let (scene, words) = scene(&lab)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut libraries = vec![path("mark.so")];
    match jemalloc() {
        Some(file) => libraries.push(file),
        None => skip::missing("jemalloc", "the package libjemalloc2")?,
    }
    let exec = scene.exec().with(["--no-incoming"]);
    // Set for the app alone, as one would: all of mirrord's own helpers would say it too.
    let set = format!("LD_PRELOAD={}", libraries.join(":"));
    let done = exec.finish(&[&["env", &set], &words[..]].concat())?;
    ensure!(seen(&done.stdout)? == scene.address, "{done:?}");
    ensure!(done.stderr.contains("marked"), "the other library is loaded as well: {done:?}");
    let done = scene
        .exec()
        .with(["--no-incoming"])
        .env("LD_PRELOAD", &libraries.join(":"))
        .finish(&words)?;
    ensure!(seen(&done.stdout)? == scene.address, "{done:?}");
    ensure!(done.stderr.contains("marked"), "the other library is loaded as well: {done:?}");
    Ok(())
}

fn jemalloc() -> Option<String> {
    let file = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
    fs::exists(file).is_ok_and(|there| there).then(|| file.to_owned())
}

#[test]
fn closed_standard_descriptors_stay_closed() -> Result<()> {
    let Some(lab) = Lab::open("closed stdin")? else {
        return Ok(());
    };
    let (scene, words) = scene(&lab)?;
    let line = format!("{} <&-", words.join(" "));
    let done = scene.exec().with(["--no-incoming"]).finish(&["sh", "-c", &line])?;
    let told: Value = serde_json::from_str(&done.stdout).with_context(|| format!("{done:?}"))?;
    assert_eq!(told["client"], 0, "the app's socket is the lowest descriptor: {told}");
    assert_eq!(told["spare"], 3, "none of ours stays open: {told}");
    ensure!(seen(&done.stdout)? == scene.address, "{done:?}");
    Ok(())
}

#[test]
fn a_program_that_is_started_through_the_loader_is_hooked() -> Result<()> {
    const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
    let Some(lab) = Lab::open("ld.so PROGRAM")? else {
        return Ok(());
    };
    if !std::path::Path::new(LOADER).exists() {
        return skip::missing("ld.so PROGRAM", LOADER);
    }
    let (scene, words) = scene(&lab)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let direct = [&[LOADER], &words[..]].concat();
    let line = direct.join(" ");
    for words in [&direct[..], &["sh", "-c", &line]] {
        let done = scene.exec().with(["--no-incoming"]).finish(words)?;
        ensure!(seen(&done.stdout)? == scene.address, "{done:?}");
    }
    Ok(())
}

#[test]
fn a_setuid_program_runs_as_if_there_were_no_layer() -> Result<()> {
    let Some(lab) = Lab::open("setuid")? else {
        return Ok(());
    };
    if !geteuid().is_root() {
        return skip::missing("setuid", "root, to make a program somebody else's");
    }
    let (scene, words) = scene(&lab)?;
    let folder = TempDir::new()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let program = folder.path().join("setuid-app");
    fs::copy(path("app"), &program)?;
    chown(&program, Some(65534), Some(65534))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    let line = format!("{} {}", program.display(), words[1..].join(" "));
    let done = scene.exec().with(["--no-incoming"]).finish(&["sh", "-c", &line])?;
    ensure!(done.code == 0 && seen(&done.stdout)? != scene.address, "{done:?}");
    Ok(())
}

#[test]
fn a_skipped_program_is_left_alone_and_its_children_are_not() -> Result<()> {
    let Some(lab) = Lab::open("--skip-processes")? else {
        return Ok(());
    };
    let (scene, words) = scene(&lab)?;
    let folder = TempDir::new()?;
    let skipped = folder.path().join("skipped-app");
    fs::copy(path("app"), &skipped)?;
    let skipped = skipped.to_string_lossy();
    let exec = || scene.exec().with(["--no-incoming", "--skip-processes", "skipped-app"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = exec().finish(&[&[&*skipped], &words[1..]].concat())?;
    ensure!(seen(&done.stdout)? != scene.address, "{done:?}");
    let done = exec().finish(&[&[&*skipped, "spawn", "fork"], &words[..]].concat())?;
    ensure!(seen(&done.stdout)? == scene.address, "{done:?}");
    Ok(())
}

#[test]
fn the_library_that_is_delivered_is_the_one_that_is_loaded() -> Result<()> {
    let Some(lab) = Lab::open("the library")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let delivered = binary().with_file_name("libmirrord_layer.so");
    let delivered = delivered.to_string_lossy();
    let done = scene.exec().finish(&["sh", "-c", "cmp \"$0\" \"$LD_PRELOAD\"", &delivered])?;
    ensure!(done.code == 0, "{done:?}");
    Ok(())
}

#[test]
fn a_child_of_a_static_pie_program() -> Result<()> {
    let Some(lab) = Lab::open("static-pie")? else {
        return Ok(());
    };
    let (scene, words) = scene(&lab)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let exec = scene.exec().with(["--no-incoming", "--skip-processes", "app-static-pie"]);
    // As a child: the command itself is refused, whatever it is called.
    let ahead = ["sh", "-c", "\"$@\"", "sh", &path("app-static-pie"), "spawn", "vfork"];
    let done = exec.finish(&[&ahead, &words[..]].concat())?;
    ensure!(seen(&done.stdout)? == scene.address, "{done:?}");
    Ok(())
}

#[test]
fn scripts_run_by_what_their_first_line_names() -> Result<()> {
    let Some(lab) = Lab::open("scripts")? else {
        return Ok(());
    };
    let (scene, words) = scene(&lab)?;
    let folder = TempDir::new()?;
    let python = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)";
    for (name, text) in [
        ("shell", "#!/bin/sh\nexec \"$@\"\n".to_owned()),
        ("python", format!("#!/usr/bin/env python3\n{python}\n")),
    ] {
        let script = folder.path().join(name);
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let script = script.to_string_lossy();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done =
            scene.exec().with(["--no-incoming"]).finish(&[&[&*script], &words[..]].concat())?;
        ensure!(seen(&done.stdout).ok() == Some(scene.address.clone()), "{name}: {done:?}");
    }
    Ok(())
}

#[test]
fn the_exit_code_is_the_commands() -> Result<()> {
    let Some(lab) = Lab::open("exit codes of a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    for (words, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["no-such-program-anywhere"], 127),
        (&["/no/such/program"], 127),
        (&["/etc/passwd"], 126),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["sh", "-c", "kill -KILL $$"], 137),
    ] {
        let done = scene.exec().finish(words)?;
        assert_eq!(done.code, code, "{words:?}: {done:?}");
    }
    Ok(())
}

#[test]
fn a_signal_to_mirrord_reaches_the_app_once() -> Result<()> {
    let Some(lab) = Lab::open("signals to a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        let mut session = scene.exec().probe()?;
        session.signal(signal)?;
        assert_eq!(session.wait()?, code, "{signal}: {}", session.stderr());
        let told = session.app().events("signal");
        assert_eq!(told.len(), 1, "{signal}: {told:?}");
    }
    Ok(())
}

#[test]
fn ctrl_c_reaches_the_app_once() -> Result<()> {
    let Some(lab) = Lab::open("Ctrl-C to a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let mut terminal = Terminal::start(&scene.exec().command(&[&path("probe"), "wait"]))?;
    terminal.until("\"waiting\"")?;
    terminal.type_in("\x03")?;
    assert_eq!(terminal.end()?, 130);
    assert_eq!(terminal.screen().matches("\"signal\"").count(), 1, "{}", terminal.screen());
    Ok(())
}

#[test]
fn standard_streams_are_the_apps() -> Result<()> {
    use std::io::Write;
    let Some(lab) = Lab::open("streams of a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let mut session = scene.exec().with(["-q"]).start(&["sh", "-c", "cat; echo err >&2"])?;
    let mut stdin = session.child.stdin.take().context("no pipe")?;
    stdin.write_all(b"one\ntwo")?;
    drop(stdin);
    let done = session.finish()?;
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (0, "one\ntwo", "err\n"));
    Ok(())
}

#[test]
fn the_app_has_the_targets_variables_and_its_own_place() -> Result<()> {
    let Some(lab) = Lab::open("variables of a process")? else {
        return Ok(());
    };
    let far = ["-e", "DB_URL=postgres://db/x?y=1#2", "-e", "PATH=/far", "-e", "HOME=/far"];
    let scene = Scene::open_with(&lab, &[&far[..], &["-e", "LD_PRELOAD=/far.so"]].concat())?;
    let session = scene.exec().probe()?;
    let env = session.app().must("env")?["env"].clone();
    assert_eq!(env["DB_URL"], "postgres://db/x?y=1#2");
    for name in ["PATH", "HOME"] {
        assert_eq!(env[name].as_str(), std::env::var(name).ok().as_deref(), "{name}");
    }
    ensure!(env["LD_PRELOAD"].as_str().is_some_and(|text| !text.contains("/far.so")), "{env}");
    Ok(())
}

#[test]
fn nothing_secret_is_in_an_argument_list() -> Result<()> {
    let Some(lab) = Lab::open("argument lists of a process")? else {
        return Ok(());
    };
    let scene = Scene::open_with(&lab, &["-e", "DB_PASSWORD=s3cr3t-of-exec"])?;
    let session = scene.exec().probe()?;
    let pid = i32::try_from(session.child.id())?;
    let key = session.app().must("env")?["env"]["MIRRORD_LAYER"].clone();
    let key = key.as_str().and_then(|text| text.split_once(':')).map(|(_, key)| key.to_owned());
    let key = key.context("a key among others of this machine")?;
    for process in mirrord_tests::processes::family(pid) {
        let words = process.args.join(" ");
        ensure!(!words.contains("s3cr3t-of-exec") && !words.contains(&key), "{words}");
    }
    Ok(())
}
