//! The embedded starter on this kernel. What is delivered is the system's shell: as `mirrord agent`
//! it runs the script named `agent` in its working folder.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::*;

const PATIENCE: u64 = 60;

/// Reads a line, then says what it has: open descriptors with what they are, and a variable.
const AGENT: &str = r#"
read line
echo "read $line"
echo "words $0 $#"
ls -l /proc/$$/fd
echo "given $GIVEN"
echo "to stderr" >&2
echo end
"#;

fn token() -> Token {
    Token::new("0123456789abcdef".repeat(4))
}

fn program(bytes: &[u8]) -> Program {
    let compressed = watch::channel(compress(bytes)).1;
    Program { digest: Sha256::digest(bytes).into(), length: bytes.len() as u64, compressed }
}

fn shell() -> Program {
    program(&std::fs::read("/bin/sh").expect("a shell"))
}

/// Nobody listens there for now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    listener.local_addr().expect("address").port()
}

struct Starter {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Starter {
    /// One that expects the shell.
    async fn new() -> Self {
        Self::expecting(&shell(), PATIENCE).await
    }

    async fn expecting(program: &Program, patience: u64) -> Self {
        let port = free_port();
        Self::spawn("exec \"$0\" \"$@\"", port, &arguments(port, &token(), program, patience)).await
    }

    /// Runs the starter from a shell's line.
    async fn spawn(line: &str, port: u16, arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("agent"), AGENT).expect("script");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).arg(executable(folder.path())).args(arguments);
        command.current_dir(folder.path()).env("GIVEN", "by the pod").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { child: command.spawn().expect("spawn"), port, _folder: folder }
    }

    async fn connect(&self) -> TcpStream {
        for _ in 0..500 {
            if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await {
                return stream;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("the starter does not listen");
    }

    async fn deliver(&self, program: &Program) -> Result<TcpStream, DeliveryError> {
        let mut stream = self.connect().await;
        within(deliver(&mut stream, &token(), program)).await?;
        Ok(stream)
    }

    /// A connection that the starter has greeted.
    async fn greeted(&self) -> TcpStream {
        let mut stream = self.connect().await;
        within(introduce(&mut stream, &token())).await.expect("greeting");
        stream
    }

    /// What it answers to bytes that are no good program.
    async fn refusal_of(&self, header: u64, stream_of_bytes: &[u8]) -> String {
        let mut stream = self.greeted().await;
        stream.write_all(&header.to_le_bytes()).await.expect("header");
        stream.write_all(stream_of_bytes).await.expect("bytes");
        let answer = within(line(&mut stream)).await.expect("answer");
        assert_eq!(within(line(&mut stream)).await.expect("end"), "", "it hangs up");
        refusal(&answer).expect("a refusal").to_owned()
    }

    /// That it still takes a good program.
    async fn serves(&self) {
        let stream = self.deliver(&shell()).await.expect("delivery");
        assert!(talk(stream).await.starts_with("read config\n"));
    }

    /// Its exit code and what it said.
    async fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("stderr");
        let ended = async {
            stderr.read_to_string(&mut said).await.expect("read");
            self.child.wait().await.expect("wait")
        };
        (within(ended).await.code(), said)
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), work).await.expect("in time")
}

/// The starter's file. It is moved there by another process: one that this process has open to
/// write could not be executed while any other test is between fork and exec.
fn executable(folder: &Path) -> PathBuf {
    let (written, path) = (folder.join("written"), folder.join("starter"));
    std::fs::write(&written, STARTER).expect("write");
    let copied = std::process::Command::new("cp").arg(&written).arg(&path).status();
    assert!(copied.expect("cp").success());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o555)).expect("mode");
    path
}

/// What the delivered shell says about itself.
async fn talk(mut stream: TcpStream) -> String {
    stream.write_all(b"config\n").await.expect("write");
    let mut said = String::new();
    within(stream.read_to_string(&mut said)).await.expect("read");
    said
}

#[tokio::test]
async fn the_program_goes_on_where_the_starter_was() {
    let starter = Starter::new().await;
    let port = starter.port;
    let stream = starter.deliver(&shell()).await.expect("delivery");
    let _next = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("still listens");
    let listening = std::fs::read_to_string("/proc/net/tcp").expect("sockets");
    let said = talk(stream).await;
    assert!(said.starts_with("read config\nwords agent 0\n"), "{said}");
    assert!(said.ends_with("given by the pod\nend\n"), "{said}");

    let fds: Vec<(&str, &str)> = said
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .filter_map(|(entry, what)| Some((entry.split(' ').next_back()?, what)))
        // The shell's own script.
        .filter(|(_, what)| !what.ends_with("/agent"))
        .collect();
    let [("0", input), ("1", output), ("2", errors), ("3", listener)] = fds[..] else {
        panic!("{fds:?}");
    };
    assert_eq!(input, output);
    assert!(input.starts_with("socket:") && errors.starts_with("pipe:"), "{fds:?}");
    let inode = listener.trim_start_matches("socket:[").trim_end_matches(']');
    let address = format!("0100007F:{port:04X} 00000000:0000 0A");
    let socket = listening.lines().find(|line| line.contains(&address)).expect("listener");
    assert_eq!(socket.split_whitespace().nth(9), Some(inode));
    assert_eq!(starter.end().await, (Some(0), "to stderr\n".to_owned()));
}

#[tokio::test]
async fn a_wrong_token_hears_nothing_and_the_right_one_is_served() {
    let starter = Starter::new().await;
    for wrong in ["f".repeat(64), "f".repeat(200), "GET / HTTP/1.1\r\n".repeat(4)] {
        let mut stream = starter.connect().await;
        let error = within(deliver(&mut stream, &Token::new(wrong), &shell())).await;
        let error = error.expect_err("refused");
        assert!(matches!(error, DeliveryError::HungUp | DeliveryError::Introduce(_)), "{error:?}");
    }
    starter.serves().await;
}

#[tokio::test]
async fn another_program_than_expected_is_refused_by_name() {
    let starter = Starter::new().await;
    let error = starter.deliver(&program(STARTER)).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the agent's starter did not take the program: the program's digest is not the expected one"
    );
    starter.serves().await;
}

#[tokio::test]
async fn a_delivery_that_breaks_off_is_forgotten() {
    let starter = Starter::new().await;
    let program = shell();
    let compressed = program.compressed().await.expect("compressed");
    for length in [0, 5, compressed.len() / 2] {
        let mut stream = starter.greeted().await;
        stream.write_all(&program.length.to_le_bytes()).await.expect("header");
        stream.write_all(&compressed[..length]).await.expect("part");
    }
    starter.serves().await;
}

#[tokio::test]
async fn the_newest_delivery_counts_while_an_older_one_hangs() {
    let starter = Starter::new().await;
    let program = shell();
    let compressed = program.compressed().await.expect("compressed");
    let mut hanging = starter.greeted().await;
    hanging.write_all(&program.length.to_le_bytes()).await.expect("header");
    hanging.write_all(&compressed[..1000]).await.expect("part");
    starter.serves().await;
}

#[tokio::test]
async fn slow_peers_hold_nobody_up_and_are_sent_away() {
    let starter = Starter::new().await;
    let mut slow = starter.connect().await;
    slow.write_all(&token().reveal().as_bytes()[..63]).await.expect("part of a token");
    assert_eq!(within(line(&mut slow)).await.expect("end"), "", "sent away after its time");
    let mut crowd = Vec::new();
    for _ in 0..50 {
        crowd.push(starter.connect().await);
    }
    starter.serves().await;
}

#[tokio::test]
async fn a_token_may_come_in_pieces() {
    let starter = Starter::new().await;
    let mut stream = starter.connect().await;
    stream.set_nodelay(true).expect("nodelay");
    for piece in token().reveal().as_bytes().chunks(7) {
        stream.write_all(piece).await.expect("piece");
        tokio::task::yield_now().await;
    }
    assert_eq!(within(line(&mut stream)).await.expect("greeting").as_bytes(), wire::GREETING);
}

#[tokio::test]
async fn what_is_no_program_is_refused_with_a_reason() {
    let starter = Starter::new().await;
    let program = shell();
    let (length, compressed) = (program.length, program.compressed().await.expect("compressed"));
    let mut damaged = compressed.to_vec();
    // In its checksum: elsewhere it could come out as a longer program.
    *damaged.last_mut().expect("bytes") ^= 1;
    let followed = [&compressed[..], b"more"].concat();
    let bomb = compress(&vec![0; 8 << 20]);
    let cases: [(u64, &[u8], &str); 8] = [
        (length, &[0xff; 5000], "the compressed program is damaged"),
        (length, &damaged, "the compressed program is damaged"),
        (length - 1, &compressed, "the program is longer than announced"),
        (length, &bomb, "the program is longer than announced"),
        (length + 1, &compressed, "the program is shorter than announced"),
        (length, &followed, "something follows the program"),
        (0, b"", "a program of 0 bytes is not taken, the largest has 134217728"),
        (
            u64::MAX,
            &compressed,
            "a program of 18446744073709551615 bytes is not taken, the largest has 134217728",
        ),
    ];
    for (header, bytes, reason) in cases {
        let said = starter.refusal_of(header, bytes).await;
        assert_eq!(said, reason);
    }
    starter.serves().await;
}

#[tokio::test]
async fn a_file_that_the_kernel_does_not_execute_is_named() {
    let text = program(b"no executable");
    let starter = Starter::expecting(&text, PATIENCE).await;
    for _ in 0..2 {
        let mut stream = starter.deliver(&text).await.expect("delivery");
        let first = within(line(&mut stream)).await.expect("line");
        assert_eq!(refusal(&first), Some("the program may not be executed: ENOEXEC (8)"));
    }
}

#[tokio::test]
async fn it_does_not_wait_for_ever() {
    let starter = Starter::expecting(&shell(), 1).await;
    let silent = starter.greeted().await;
    let (code, said) = starter.end().await;
    assert_eq!((code, said.as_str()), (Some(110), "no program was delivered in 1 s\n"));
    drop(silent);
}

#[tokio::test]
async fn a_taken_port_is_said() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = taken.local_addr().expect("address").port();
    let words = arguments(port, &token(), &shell(), PATIENCE);
    let starter = Starter::spawn("exec \"$0\" \"$@\"", port, &words).await;
    let said = format!("cannot listen on 127.0.0.1:{port}: EADDRINUSE (98)\n");
    assert_eq!(starter.end().await, (Some(98), said));
}

#[tokio::test]
async fn wrong_arguments_are_said() {
    let starter = Starter::spawn("exec \"$0\" \"$@\"", 0, &["agent".to_owned()]).await;
    let said = "usage: starter PORT SHA256(token) SHA256(program) SECONDS\n";
    assert_eq!(starter.end().await, (Some(2), said.to_owned()));
}

#[tokio::test]
async fn closed_standard_descriptors_change_nothing() {
    let port = free_port();
    let words = arguments(port, &token(), &shell(), PATIENCE);
    for line in ["exec \"$0\" \"$@\" <&- >&-", "exec \"$0\" \"$@\" <&- >&- 2>&-"] {
        let starter = Starter::spawn(line, port, &words).await;
        let said = talk(starter.deliver(&shell()).await.expect("delivery")).await;
        assert!(said.starts_with("read config\n") && said.ends_with("end\n"), "{said}");
    }
}

#[tokio::test]
async fn a_lost_reader_of_its_errors_does_not_kill_it() {
    let mut starter = Starter::expecting(&shell(), 1).await;
    drop(starter.child.stderr.take());
    let status = within(starter.child.wait()).await.expect("wait");
    assert_eq!(status.code(), Some(110));
}

#[tokio::test]
async fn it_leaves_when_told_to() {
    let starter = Starter::new().await;
    drop(starter.connect().await);
    let pid = starter.child.id().and_then(|pid| i32::try_from(pid).ok()).expect("pid");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("kill");
    assert_eq!(starter.end().await, (Some(143), String::new()));
}

#[tokio::test]
async fn the_running_executable_is_delivered_whole() {
    let ours = std::fs::read("/proc/self/exe").expect("ourselves");
    let program = Program::of_ourselves().await.expect("program");
    assert_eq!(program.digest_hex(), hex(&Sha256::digest(&ours)));
    assert_eq!(program.length, ours.len() as u64);
    let compressed = program.compressed().await.expect("compressed");
    let whole = miniz_oxide::inflate::decompress_to_vec_zlib(&compressed).expect("zlib");
    assert!(whole == ours);
}

#[tokio::test]
async fn another_server_is_no_starter() {
    let (mut ours, mut theirs) = tokio::io::duplex(1 << 10);
    theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.expect("write");
    let error = deliver(&mut ours, &token(), &shell()).await.expect_err("no starter");
    assert!(error.to_string().contains("is not the agent's starter"), "{error}");
}

#[test]
fn the_starter_is_small_static_and_needs_no_loader() {
    assert!(STARTER.len() < 40_000, "{} bytes", STARTER.len());
    assert_eq!(&STARTER[..4], b"\x7fELF");
    // e_phoff, e_phentsize, e_phnum; a program header of type 3 names a loader.
    let at = |place: usize| usize::from(u16::from_le_bytes([STARTER[place], STARTER[place + 1]]));
    for header in 0..at(56) {
        assert_ne!(at(at(32) + header * at(54)), 3);
    }
}
