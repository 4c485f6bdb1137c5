//! The real proxy as it runs on a developer's machine: without a namespace and without a right.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mirrord_protocol::Token;
use mirrord_protocol::control::{
    Agents, Incoming, IncomingMode, LayerConfig, LayerKey, PlaneKind, ProxyConfig, ProxyEvent,
};
use mirrord_tunnel::HandedPipe;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::client::App;

/// The user who owns nothing.
const NOBODY: u32 = 65534;
pub const KEY: LayerKey = LayerKey([7; 16]);

/// The token of every session here.
pub fn token() -> Token {
    Token::new("secret")
}

/// A proxy and what it says.
pub struct Session {
    program: fn() -> Command,
    pub init: Child,
    pub stdin: Option<ChildStdin>,
    events: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
    pub app: App,
}

/// The program under test.
pub fn proxy() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("examples/proxy");
    assert!(built.exists(), "cargo builds it with the tests: {}", built.display());
    built
}

fn program() -> Command {
    Command::new(proxy())
}

fn nobodys_program() -> Command {
    let nobody = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups", "--no-new-privs"]);
    command.args(["--bounding-set", "-all", "--inh-caps", "-all"]).arg(proxy());
    command
}

impl Session {
    /// Starts one.
    pub async fn start(change: impl FnOnce(&mut ProxyConfig, &mut LayerConfig)) -> Self {
        Self::start_by(program, change).await
    }

    /// Starts one as a user without any right; only root can.
    pub async fn start_as_nobody() -> Self {
        Self::start_by(nobodys_program, |_, _| {}).await
    }

    async fn start_by(
        program: fn() -> Command,
        change: impl FnOnce(&mut ProxyConfig, &mut LayerConfig),
    ) -> Self {
        let folder = TempDir::new().unwrap();
        if geteuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let (config, socket) = config(&folder, change);
        let mut init = program()
            .arg("proxy")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = init.stdin.take().unwrap();
        let mut line = serde_json::to_vec(&config).unwrap();
        line.push(b'\n');
        stdin.write_all(&line).await.unwrap();
        let events = BufReader::new(init.stdout.take().unwrap()).lines();
        let app = App { socket, key: KEY.0 };
        let mut session = Self { program, init, stdin: Some(stdin), events, folder, app };
        assert!(matches!(session.event().await, ProxyEvent::Waiting));
        session
    }

    /// What it says next.
    pub async fn event(&mut self) -> ProxyEvent {
        let line = tokio::time::timeout(Duration::from_secs(10), self.events.next_line());
        let line = line.await.expect("nothing was said").unwrap().expect("it ended");
        serde_json::from_str(&line).unwrap()
    }

    /// The first thing that it says and that is so.
    pub async fn hears(&mut self, wanted: impl Fn(&ProxyEvent) -> bool) -> ProxyEvent {
        loop {
            let event = self.event().await;
            if wanted(&event) {
                return event;
            }
        }
    }

    /// A process that brings a pipe, and our end of it.
    pub fn bring(&self) -> (Child, HandedPipe) {
        let mut child = (self.program)()
            .args(["proxy", "--pipe", "0", "--folder"])
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap().into_owned_fd().unwrap();
        let stdout = child.stdout.take().unwrap().into_owned_fd().unwrap();
        (child, HandedPipe::new(stdout, stdin).unwrap())
    }

    /// The worker's process.
    pub fn worker(&self) -> Pid {
        let pid = self.init.id().unwrap();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap())
    }

    /// Kills the worker.
    pub fn kill_worker(&self) {
        kill(self.worker(), Signal::SIGKILL).unwrap();
    }
}

fn config(
    folder: &TempDir,
    change: impl FnOnce(&mut ProxyConfig, &mut LayerConfig),
) -> (ProxyConfig, String) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut layer = LayerConfig {
        socket: format!("mirrord-test-{}-{number}", std::process::id()),
        key: Some(KEY),
        hostname: true,
        owns_etc: false,
        skipped: vec!["git".into()],
        listen_ports: vec![],
        unix_streams: vec![],
    };
    let mut config = ProxyConfig {
        session: "test".into(),
        token: token(),
        agents: Agents::Handed(1),
        folder: folder.path().to_str().unwrap().into(),
        plane: PlaneKind::Netns(None),
        incoming: Incoming { mode: IncomingMode::Steal, ports: vec![], ignore_ports: vec![] },
        outgoing_tcp: true,
        outgoing_udp: true,
        remote_dns: true,
        env: false,
        hosts: vec!["10.0.0.1 added".into()],
        published_udp: vec![],
        grace: 5,
        log: std::env::var("MIRRORD_LOG").unwrap_or_else(|_| "warn".into()),
    };
    change(&mut config, &mut layer);
    let socket = layer.socket.clone();
    config.plane = PlaneKind::Layer(layer);
    (config, socket)
}
