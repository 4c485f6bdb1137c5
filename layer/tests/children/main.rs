//! Names, and programs that are executed, with the layer, in each libc that this machine has:
//! `names.c` and `exec.c` are what they are.

#[path = "../../../cli/build/layer.rs"]
mod layer;
#[path = "../common/libcs.rs"]
mod libcs;
#[path = "../common/library.rs"]
mod library;
#[path = "../../../cli/build/nested.rs"]
mod nested;
mod proxy;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::{env, fs};

use libcs::{Binary, Libc};
use proxy::Programs;

/// A program in each of these libcs, compiled once.
fn compiled(name: &'static str, more: &[&str], libcs: &[Libc]) -> Vec<Binary> {
    static MADE: Mutex<BTreeMap<&str, Vec<Binary>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().expect("not poisoned");
    let source = PathBuf::from(format!("tests/children/{name}.c"));
    made.entry(name).or_insert_with(|| libcs::compiled(&source, more, libcs)).clone()
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn run(mut command: Command, variable: &str, words: &[&str]) -> Output {
    command.args(words).env("MIRRORD_LAYER", variable);
    command.current_dir(folder()).output().expect("it runs")
}

/// A program of this machine's own, with the layer.
fn loaded(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library::library());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// A script that shows its arguments and what it has of the layer.
fn script() -> PathBuf {
    let file = folder().join(format!("children-{}.sh", std::process::id()));
    if !file.exists() {
        let part = file.with_extension("part");
        let line =
            "#!/bin/sh\nshift $(($# > 0 ? $# - 1 : 0))\necho \"$1 $LD_PRELOAD $MIRRORD_LAYER\"\n";
        fs::write(&part, line).expect("written");
        fs::set_permissions(&part, PermissionsExt::from_mode(0o755)).expect("set");
        fs::rename(&part, &file).expect("in place");
    }
    file
}

/// A static program that ends with 7, and a script that it reads.
fn static_program(name: &str) -> (PathBuf, PathBuf) {
    let file = folder().join(name);
    let source = file.with_extension("c");
    fs::write(&source, "int main(int count, char **words) { return 6 + count; }").expect("written");
    let mut cc = Command::new("cc");
    let made = cc.args(["-static", "-o"]).args([&file, &source]).status().expect("a C compiler");
    assert!(made.success());
    let script = folder().join(format!("{name}.read"));
    fs::write(&script, format!("#!{} word\n", file.display())).expect("written");
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("set");
    (file, script)
}

const WAYS: &[&str] = &[
    "execve",
    "execv",
    "execvp",
    "execvpe",
    "execl",
    "execlp",
    "execle",
    "fexecve",
    "execveat",
    "syscall",
    "nothing",
    "posix_spawn",
    "posix_spawnp",
    "vfork execve",
    "vfork execvpe",
    "vfork execle",
];

#[test]
fn names_are_the_targets_in_every_form() {
    let variable = proxy::start("web-0\0", Programs::Refused);
    for program in compiled("names", &["-lresolv"], libcs::ALL) {
        let output = run(program.loaded(), &variable, &[]);
        let expected = "\
info db 10.9.0.1/80 2001:db8::1/80 db.shop
info db 10.9.0.1/80
info db 2001:db8::1/80
info four ::ffff:10.9.0.4/80
info four error none
info nobody error none
info again error again
info db error service
info db error none
info 127.1 127.0.0.1/80
info - 0.0.0.0/80
by name db.shop=db 10.9.0.1
by name error 1
by name db.shop=db 2001:db8::1
reentrant db.shop=db 10.9.0.1
reentrant: too small
reentrant error 1
back ok db.shop: 80
back ok db.shop: 80
back ok 10.9.0.2: 80
back none  
back ok 10.9.0.1: 80
back again  
by address db.shop 10.9.0.1
by address error 1
query 1
query -1 1
search 1
domain 1
cut 1 2
send 1 0
send 1 0 3
host 0 web-0 web-0
";
        let lines = text(&output.stdout).replace(" errno\n", "\n");
        assert_eq!(lines, expected, "{} {}", program.file.display(), text(&output.stderr));
    }
}

#[test]
fn without_a_proxy_names_are_tried_again_later() {
    for program in compiled("names", &["-lresolv"], libcs::ALL) {
        let output = run(program.loaded(), "mirrord-layer-children-nobody", &[]);
        let lines = text(&output.stdout);
        assert!(lines.starts_with("info db error again\n"), "{lines}");
        assert!(lines.contains("info 127.1 127.0.0.1/80"), "{lines}");
    }
}

#[test]
fn what_concerns_this_machine_is_as_it_was() {
    let variable = proxy::start("\0", Programs::Refused);
    for program in compiled("local", &[], libcs::ALL) {
        let without = program.plain().output().expect("it runs");
        let with = run(program.loaded(), &variable, &[]);
        assert!(text(&without.stdout).lines().count() > 500);
        let (without, with) = (text(&without.stdout), text(&with.stdout));
        for (without, with) in without.lines().zip(with.lines()) {
            assert_eq!(without, with, "{}", program.file.display());
        }
        assert_eq!(without.len(), with.len());
    }
}

#[test]
fn many_threads_ask_and_execute_at_once() {
    let variable = proxy::start("\0", Programs::Refused);
    for program in compiled("stress", &["-pthread"], libcs::NATIVE) {
        let output = run(program.loaded(), &variable, &["2"]);
        assert_eq!(text(&output.stdout), "", "{}", program.file.display());
        assert!(output.status.success(), "{:?} {}", output.status, text(&output.stderr));
    }
}

#[test]
fn system_calls_by_number_are_answered_as_ever() {
    let variable = proxy::start("web-0\0", Programs::Refused);
    for program in compiled("calls", &[], libcs::ALL) {
        let output = run(program.loaded(), &variable, &[]);
        let expected = "pid 1 77\nmap 1\nmap at b\nclose -1 9\nnone -1 1\nring -1 1\n\
                        name 0 web-0\nchild\nsocket -1 1\n";
        assert_eq!(text(&output.stdout), expected, "{}", program.file.display());
    }
}

#[test]
fn the_layer_goes_along_with_every_program() {
    let variable = proxy::start("\0", Programs::Refused);
    let (script, library) = (script(), library::library().display());
    let script = script.to_str().expect("text");
    for program in compiled("exec", &[], libcs::NATIVE) {
        for way in WAYS {
            let output = run(program.loaded(), &variable, &[way, script]);
            let line = text(&output.stdout);
            let rest = line.split_once(' ').map(|(_, rest)| rest).unwrap_or_default();
            let error = text(&output.stderr);
            assert_eq!(rest, format!("{library} {variable}\n"), "{way}: {error}");
            if way.ends_with("execl") || way.ends_with("execle") {
                assert!(line.starts_with(['5', '6']), "{line}");
            }
        }
        for way in ["system", "popen"] {
            let output = run(program.loaded(), &variable, &[way, script]);
            let expected = format!("x {library} {variable}\n");
            assert_eq!(text(&output.stdout), expected, "{way}: {}", text(&output.stderr));
        }
        let own = ["execve", script, "LD_PRELOAD=libc.so.6"];
        let line = text(&run(program.loaded(), &variable, &own).stdout);
        assert_eq!(line, format!("x libc.so.6:{library} {variable}\n"));
    }
}

#[test]
fn shells_and_env_hand_the_layer_on() {
    let variable = proxy::start("\0", Programs::Refused);
    let (script, library) = (script(), library::library().display());
    let script = script.to_str().expect("text");
    for line in [
        "SCRIPT x",
        "exec SCRIPT x",
        "env -i SCRIPT x",
        "env -u LD_PRELOAD -u MIRRORD_LAYER SCRIPT x",
        "unset LD_PRELOAD MIRRORD_LAYER; SCRIPT x",
        "(SCRIPT y; SCRIPT x) | tail -n 1 | cat",
        "SCRIPT x & wait",
        "echo $(LD_PRELOAD= SCRIPT x)",
        "PATH=FOLDER:$PATH; NAME x",
        "find SCRIPT -exec {} x ';'",
        "echo x | xargs SCRIPT",
        "nohup setsid -w nice timeout 10 SCRIPT x",
    ] {
        let path = Path::new(script);
        let name = path.file_name().and_then(|name| name.to_str()).expect("text");
        let line = line.replace("SCRIPT", script).replace("NAME", name);
        let line = line.replace("FOLDER", folder().to_str().expect("text"));
        for shell in ["/bin/sh", "/bin/bash"] {
            let output = run(loaded(shell), &variable, &["-c", &line]);
            let error = text(&output.stderr);
            let expected = format!("x {library} {variable}\n");
            assert_eq!(text(&output.stdout), expected, "{shell} {line}: {error}");
        }
    }
}

#[test]
fn a_program_that_gives_rights_runs_and_is_named_once() {
    let variable = proxy::start("\0", Programs::Refused);
    let program = folder().join("children-secure");
    fs::copy("/bin/true", &program).expect("copied");
    // Whoever runs the tests as root owns what it makes: another's program gives rights.
    if std::os::unix::fs::chown(&program, Some(65534), None).is_err() {
        eprintln!("SKIPPED: only root can make such a program");
        return;
    }
    fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).expect("set");
    let output = run(loaded("/bin/sh"), &variable, &["-c", "./children-secure"]);
    let expected = "mirrord: note: ./children-secure runs with other rights than its caller: \
                    no library can be loaded into it, so it runs without the target\n";
    assert_eq!(text(&output.stderr), expected);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_static_program_is_refused_by_name() {
    let variable = proxy::start("\0", Programs::Refused);
    let (file, script) = static_program("children-static");
    for program in compiled("exec", &[], libcs::NATIVE) {
        for (way, path) in WAYS.iter().flat_map(|way| [(way, &file), (way, &script)]) {
            let output = run(program.loaded(), &variable, &[way, path.to_str().expect("text")]);
            let expected = format!(
                "mirrord: error: {} is statically linked: no library can be loaded into it; \
                 run it in a container with 'mirrord docker run'\n",
                file.display()
            );
            assert_eq!(text(&output.stderr), expected, "{way}");
            assert_eq!(output.status.code(), Some(126), "{way}");
        }
    }
}

#[test]
fn a_static_program_may_be_exchanged_or_let_through() {
    let (file, script) = static_program("children-exchanged");
    let (left_alone, _) = static_program("left-alone");
    let exchanging = proxy::start("\0", Programs::Copied);
    let refusing = proxy::start("\0", Programs::Refused);
    let direct = proxy::start("\0", Programs::Direct);
    for program in compiled("exec", &[], libcs::NATIVE) {
        for way in ["execve", "vfork execve", "posix_spawn", "execvp", "syscall"] {
            let code = |variable, path: &Path| {
                let output = run(program.loaded(), variable, &[way, path.to_str().expect("text")]);
                assert_eq!(text(&output.stderr), "", "{way}");
                output.status.code()
            };
            assert_eq!(code(&exchanging, &file), Some(8), "{way}");
            assert_eq!(code(&exchanging, &script), Some(10), "interpreter, word, script, x: {way}");
            assert_eq!(code(&direct, &file), Some(8), "{way}");
            assert_eq!(code(&refusing, &left_alone), Some(8), "{way}");
            assert_eq!(code("mirrord-layer-children-nobody", &file), Some(8), "{way}");
        }
    }
}
