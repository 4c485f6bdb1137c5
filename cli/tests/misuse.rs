//! What is wrong before any engine is asked: exit code, standard output and standard error.

use std::fmt::Write;
use std::process::Command;

use insta::assert_snapshot;

/// Runs `mirrord` with the words of a line, and tells all that can be seen of it.
fn told(line: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mirrord"))
        .args(line.split_whitespace())
        .env_clear()
        .env("DOCKER_HOST", "unix:///nowhere/docker.sock")
        .output()
        .expect("mirrord starts");
    let mut told = format!("exit {}\n", output.status.code().unwrap_or(-1));
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        if !bytes.is_empty() {
            let _ = write!(told, "--- {name}\n{}", String::from_utf8_lossy(&bytes));
        }
    }
    told
}

#[test]
fn a_target_without_a_type() {
    assert_snapshot!(told("-t orders docker run img"), @r#"
    exit 125
    --- stderr
    mirrord: error: the target "orders" is not TYPE/NAME
    hint: did you mean -t deployment/orders, -t pod/orders or -t container/orders? see 'mirrord ls'
    "#);
}

#[test]
fn a_target_of_a_type_that_nobody_knows() {
    assert_snapshot!(told("-t deploymnt/orders docker run img"), @r#"
    exit 125
    --- stderr
    mirrord: error: there is no target of type "deploymnt"
    hint: did you mean deployment?
    "#);
}

#[test]
fn a_flag_that_docker_does_not_have() {
    assert_snapshot!(told("-t container/a docker run --evn A=1 img"), @r#"
    exit 125
    --- stderr
    mirrord: error: unknown flag: --evn
    hint: did you mean --env? see 'docker run --help'
    "#);
}

#[test]
fn a_flag_that_cannot_be_honoured() {
    assert_snapshot!(told("-t container/a docker run --network container:db img"), @r#"
    exit 125
    --- stderr
    mirrord: error: --network container:db is another container's network, and a container can only join one
    hint: give both containers a network of their own: docker network create
    "#);
}

#[test]
fn a_docker_command_that_runs_nothing() {
    assert_snapshot!(told("-t container/a docker ps"), @r#"
    exit 125
    --- stderr
    mirrord: error: 'docker ps' does not start a container in a target's place
    hint: use 'mirrord -t container/NAME docker run [FLAGS] IMAGE [COMMAND]'
    "#);
}

#[test]
fn an_option_that_is_not_understood() {
    assert_snapshot!(told("-t container/a --port 80:x docker run img"), @r#"
    exit 125
    --- stderr
    mirrord: error: invalid value "80:x" for --port: it is not LOCAL[:REMOTE][/udp]
    hint: for example --port 3000:80
    "#);
    assert_snapshot!(told("--steel docker run img"), @r#"
    exit 125
    --- stderr
    mirrord: error: unexpected argument '--steel' found
    hint: a similar argument exists: '--steal'
    "#);
}

#[test]
fn no_docker_client() {
    assert_snapshot!(told("-t container/a docker run img"), @r#"
    exit 125
    --- stderr
    mirrord: error: there is no docker command in PATH
    hint: install the Docker client, or add its folder to PATH
    "#);
}

#[test]
fn a_command_that_does_not_exist() {
    assert_snapshot!(told("nosuch"), @r#"
    exit 2
    --- stderr
    mirrord: error: unrecognized subcommand 'nosuch'
    hint: see mirrord --help
    "#);
}

#[test]
fn the_version_is_data() {
    assert_snapshot!(told("--version"), @r#"
    exit 0
    --- stdout
    mirrord 0.1.0
    "#);
}

#[test]
fn a_process_has_no_plane_of_the_kernels() {
    assert_snapshot!(told("exec -t container/a --plane netns -- true"), @r#"
    exit 2
    --- stderr
    mirrord: error: the kernel cannot redirect the network of a process of this machine
    hint: leave --plane netns out, or use 'mirrord docker run'
    "#);
}

/// The exit code and the words of a command whose data goes to `out`.
fn told_to(line: &str, out: impl Into<std::process::Stdio>) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mirrord"))
        .args(line.split_whitespace())
        .env_clear()
        .stdout(out)
        .output()
        .expect("mirrord starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn data_that_nobody_reads_is_no_failure_and_data_that_cannot_be_written_is() {
    for line in ["completions bash", "--explain exec -- true"] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(told_to(line, writer), (Some(0), String::new()), "{line}");
        let full = std::fs::File::create("/dev/full").expect("a device");
        let (code, words) = told_to(line, full);
        assert_eq!(code, Some(1), "{line}: {words}");
        assert!(words.starts_with("mirrord: error: cannot write to standard output\n"), "{words}");
    }
}
