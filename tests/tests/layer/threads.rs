//! Many threads and forks at once, and what interrupts them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::toolbox::{PYTHON, path};
use serde_json::Value;

use crate::stage::{PORT, answers_as};

#[test]
fn sixty_four_threads_accept_on_one_listener() -> Result<()> {
    let Some(lab) = Lab::open("64 threads")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let words = [&path("app"), "serve", "threads", "8000", "64"];
    let session = scene.exec().with(["--steal"]).start(&words)?;
    answers_as(&scene, &session, "threads")?;
    let mut threads = BTreeSet::new();
    for _ in 0..200 {
        let seen = scene.client().must(&format!("ask {} http /", scene.at(PORT)))?;
        ensure!(seen["answer"]["peer"] == seen["local"], "{seen}");
        threads.insert(seen["answer"]["thread"].as_i64());
    }
    ensure!(threads.len() > 8, "only {} threads answered", threads.len());
    Ok(())
}

/// How many seconds such a test goes on: a minute finds more.
const SECONDS: &str = "MIRRORD_STRESS_SECONDS";

/// Threads and children that accept on one listener and fork, while the target's client connects.
fn stress(words: &[&str], options: &[(&str, &str)]) -> Result<()> {
    let Some(lab) = Lab::open("threads, forks, accepts")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let seconds = std::env::var(SECONDS).unwrap_or_else(|_| "4".into());
    let exec = options.iter().fold(scene.exec(), |exec, (name, value)| exec.env(name, value));
    let words = [words, &["stress", "8000", &seconds]].concat();
    let mut session = exec.with(["--steal"]).start(&words)?;
    while session.child.try_wait()?.is_none() {
        // Refused while the port is not stolen yet, or not any more.
        scene.client().ask(&format!("connect {}", scene.at(PORT)))?;
    }
    let done = session.finish()?;
    let last = done.stdout.lines().last().with_context(|| format!("{done:?}"))?;
    let told: Value = serde_json::from_str(last).with_context(|| format!("{done:?}"))?;
    ensure!(done.code == 0 && told["failed"] == 0, "{done:?}");
    ensure!(!done.stderr.contains("Sanitizer"), "{done:?}");
    for (what, least) in [("accepted", 50), ("clients", 1), ("connected", 50), ("forked", 50)] {
        ensure!(told[what].as_u64().is_some_and(|count| count >= least), "{told}");
    }
    eprintln!("{words:?}: {told}");
    Ok(())
}

#[test]
fn threads_accept_and_connect_while_others_fork() -> Result<()> {
    stress(&[&path("app")], &[])
}

#[test]
fn threads_accept_and_connect_while_others_fork_in_musl() -> Result<()> {
    stress(&[&path("app-musl")], &[])
}

#[test]
fn threads_accept_and_connect_while_others_fork_under_the_address_sanitizer() -> Result<()> {
    let options = "verify_asan_link_order=0:detect_leaks=0";
    stress(&[&path("app-asan")], &[("ASAN_OPTIONS", options)])
}

#[test]
fn threads_accept_and_connect_while_others_fork_under_the_thread_sanitizer() -> Result<()> {
    // Its memory is where addresses would be drawn by lot.
    let words = ["setarch", "-R", &path("app-tsan")];
    stress(&words, &[("TSAN_OPTIONS", "die_after_fork=0")])
}

#[test]
fn a_signal_interrupts_what_it_would_interrupt() -> Result<()> {
    const SCRIPT: &str = "
import signal, socket
class Rang(Exception): pass
def ring(*_): raise Rang
signal.signal(signal.SIGALRM, ring)
listener = socket.create_server(('', 8000))
for call in [listener.accept, listener.accept]:
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        call()
        print('came back')
    except Rang:
        print('rang')
    except OSError as error:
        print(type(error).__name__)
    signal.setitimer(signal.ITIMER_REAL, 0)
";
    let Some(lab) = Lab::open("EINTR")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let done = scene.exec().with(["--steal"]).finish(&[PYTHON, "-c", SCRIPT])?;
    let lines: Vec<_> = done.stdout.lines().collect();
    ensure!(lines == ["rang", "rang"], "{done:?}");
    ensure!(lines.last() != Some(&"came back"), "{done:?}");
    Ok(())
}

#[test]
fn a_program_at_its_limit_of_files_is_told_so_and_goes_on() -> Result<()> {
    const SCRIPT: &str = "
import errno, os, resource, socket, sys
to = (sys.argv[1], 7000)
socket.create_connection(to).close()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
free, sock = [], socket.socket()
try:
    while True:
        free.append(os.open('/dev/null', os.O_RDONLY))
except OSError as error:
    print(errno.errorcode[error.errno])
try:
    sock.connect(to)
    print('connected')
except OSError as error:
    print(errno.errorcode[error.errno])
for number in free:
    os.close(number)
socket.create_connection(to).close()
print('goes on')
";
    let Some(lab) = Lab::open("EMFILE")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let peer = scene.client.address()?;
    let done = scene.exec().with(["--no-incoming"]).finish(&[PYTHON, "-c", SCRIPT, &peer])?;
    let lines: Vec<_> = done.stdout.lines().collect();
    ensure!(lines.first() == Some(&"EMFILE") && lines.last() == Some(&"goes on"), "{done:?}");
    Ok(())
}
