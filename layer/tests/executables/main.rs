//! Programs that make system calls without libc: what is replaced in the executable itself.

#[path = "../../../cli/build/blob.rs"]
mod blob;
#[path = "../../../cli/build/layer.rs"]
mod layer;
#[path = "../common/library.rs"]
mod library;
#[path = "../../../cli/build/nested.rs"]
mod nested;
#[allow(dead_code)]
#[path = "../programs/proxy.rs"]
mod proxy;
/// A part of the proxy.
#[path = "../../../proxy/src/layer"]
mod rewriter {
    pub mod rewrite;
}

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;

use nested::Nested;
use proxy::Proxy;
use rewriter::rewrite::{self, Blob};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// How Go makes a program.
struct Way {
    name: &'static str,
    cgo: &'static str,
    flags: &'static [&'static str],
    is_static: bool,
}

const WAYS: &[Way] = &[
    Way { name: "dynamic", cgo: "1", flags: &[], is_static: false },
    Way { name: "dynamic-stripped", cgo: "1", flags: &["-ldflags=-s -w"], is_static: false },
    Way { name: "pie", cgo: "0", flags: &["-buildmode=pie"], is_static: false },
    Way { name: "static", cgo: "0", flags: &[], is_static: true },
    Way {
        name: "static-stripped",
        cgo: "0",
        flags: &["-ldflags=-s -w -buildid="],
        is_static: true,
    },
    Way {
        name: "static-cgo",
        cgo: "1",
        flags: &["-ldflags=-linkmode external -extldflags -static"],
        is_static: true,
    },
    Way {
        name: "static-pie",
        cgo: "1",
        flags: &["-buildmode=pie", "-ldflags=-linkmode external -extldflags -static-pie"],
        is_static: true,
    },
];

/// A program, and where it was before it was rewritten.
struct Program {
    name: &'static str,
    made: PathBuf,
    run: PathBuf,
    is_static: bool,
}

/// The Go program, made in each way; none where there is no Go.
fn programs() -> &'static [Program] {
    static PROGRAMS: OnceLock<Vec<Program>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        if !Command::new("go").arg("version").output().is_ok_and(|go| go.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "go is missing");
            eprintln!("SKIPPED: go is missing");
            return Vec::new();
        }
        WAYS.iter().map(make).collect()
    })
}

fn make(way: &Way) -> Program {
    let made = folder().join(format!("go-{}", way.name));
    let mut go = Command::new("go");
    go.current_dir("tests/executables/go").env("CGO_ENABLED", way.cgo);
    go.args(["build", "-trimpath"]).args(way.flags).arg("-o").arg(&made);
    let output = go.output().expect("go");
    assert!(output.status.success(), "{}: {output:?}", way.name);
    let mut run = made.clone();
    if way.is_static {
        run.set_extension("rewritten");
        let program = fs::read(&made).expect("the program");
        let path = made.as_os_str().as_bytes();
        let rewritten = rewrite::rewrite(&program, blob(), path).expect("a Go program");
        fs::write(&run, rewritten).expect("written");
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    Program { name: way.name, made, run, is_static: way.is_static }
}

fn blob() -> &'static Blob {
    static BLOB: OnceLock<Blob> = OnceLock::new();
    BLOB.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").expect("run by cargo");
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH).into();
        let made = blob::build(&Nested { out: folder().to_owned(), cargo, target });
        let bytes = fs::read(made.expect("it is built")).expect("its bytes");
        Blob::parse(&bytes).expect("a blob")
    })
}

impl Program {
    fn command(&self, proxy: &Proxy, words: &[&str]) -> Command {
        let mut command = Command::new(&self.run);
        command.args(words).env("MIRRORD_LAYER", proxy.variable()).stdin(Stdio::null());
        command.env("LD_PRELOAD", library::library()).env("GOMAXPROCS", "2");
        command.stdout(Stdio::piped());
        command
    }

    fn lines(&self, proxy: &Proxy, words: &[&str]) -> Vec<String> {
        lines(&self.command(proxy, words).output().expect("it runs"))
    }
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

/// Runs a test of each, each with a proxy of its own.
fn of_each(test: impl Fn(&Program, &Proxy)) {
    for program in programs() {
        test(program, &Proxy::start());
    }
}

#[test]
fn go_accepts_the_real_client() {
    of_each(|program, proxy| {
        let run = program.command(proxy, &["serve", ":8090"]).spawn().expect("it runs");
        let output = thread::scope(|scope| {
            let output = scope.spawn(|| run.wait_with_output().expect("its output"));
            let _client = proxy.client(8090, "10.9.0.7:1234", "10.9.0.100:8090");
            output.join().expect("no panic")
        });
        let expected = ["listens [::]:8090", "accepted 10.9.0.7:1234 at 10.9.0.100:8090"];
        assert_eq!(lines(&output), expected, "{}", program.name);
    });
}

#[test]
fn go_connects_as_the_far_end_answers() {
    of_each(|program, proxy| {
        let name = program.name;
        let answered = ["peer 10.9.0.1:80", "heard pong"];
        assert_eq!(program.lines(proxy, &["call", "10.9.0.1:80"]), answered, "{name}");
        let refused = "dial tcp 10.9.0.3:80: connect: connection refused";
        assert_eq!(program.lines(proxy, &["call", "10.9.0.3:80"]), [refused], "{name}");
        let unreachable = "dial tcp 10.9.0.2:80: connect: no route to host";
        assert_eq!(program.lines(proxy, &["call", "10.9.0.2:80"]), [unreachable], "{name}");
    });
}

#[test]
fn go_exchanges_datagrams() {
    of_each(|program, proxy| {
        let heard = program.lines(proxy, &["datagrams", "10.9.0.1:53"]);
        assert_eq!(heard, ["from 10.9.0.1:53 ping"], "{}", program.name);
    });
}

#[test]
fn a_rewritten_program_has_its_own_path() {
    of_each(|program, proxy| {
        let path = program.made.display().to_string();
        assert_eq!(program.lines(proxy, &["itself"]), [path], "{}", program.name);
    });
}

#[test]
fn every_child_of_go_has_the_layer() {
    of_each(|program, proxy| {
        let seen = program.lines(proxy, &["children"]);
        let failed = "fork/exec /nonexistent: no such file or directory";
        assert_eq!(seen[0], failed, "{}", program.name);
        assert_eq!(seen.len(), 4, "{}: {seen:?}", program.name);
        for child in &seen[1..] {
            for variable in ["OWN ", "MIRRORD_LAYER ", "LD_PRELOAD "] {
                assert!(child.contains(variable), "{}: {child}", program.name);
            }
        }
    });
}

#[test]
fn goroutines_are_preempted_and_collected_as_ever() {
    of_each(|program, proxy| {
        assert_eq!(
            program.lines(proxy, &["crowd", "127.0.0.1:8091"]),
            ["met 2000"],
            "{}",
            program.name
        );
    });
}

#[test]
fn rewritten_programs_run_without_a_proxy() {
    for program in programs().iter().filter(|program| program.is_static) {
        let output =
            Command::new(&program.run).args(["crowd", "127.0.0.1:0"]).output().expect("it runs");
        assert_eq!(lines(&output), ["met 2000"], "{}", program.name);
    }
}

#[test]
fn a_function_of_libuv_is_replaced() {
    let proxy = Proxy::start();
    let program = folder().join("uv");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-rdynamic", "-Wl,--hash-style=gnu", "tests/executables/uv.c", "-o"]);
    assert!(cc.arg(&program).status().expect("a C compiler").success());
    let mut command = Command::new(&program);
    command.arg("8092").stdout(Stdio::piped());
    command.env("LD_PRELOAD", library::library()).env("MIRRORD_LAYER", proxy.variable());
    let run = command.spawn().expect("it runs");
    let _client = proxy.client(8092, "10.9.0.7:1234", "10.9.0.100:8092");
    let output = run.wait_with_output().expect("its output");
    assert_eq!(lines(&output), ["accepted 10.9.0.7:1234"]);
}
