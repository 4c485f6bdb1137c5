//! A sidecar in namespaces of its own: the real processes, without an engine.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use mirrord_protocol::Token;
use mirrord_protocol::control::{
    Agents, Incoming, IncomingMode, PlaneKind, ProxyConfig, ProxyEvent, SHARED_FOLDER, TargetIndex,
};
use mirrord_tunnel::HandedPipe;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// What the engine would have made: a link with a default route, files to write to.
const SETUP: &str = "\
    set -e
    mount -t tmpfs tmpfs /run
    mount --bind \"$FILES/resolv.conf\" /etc/resolv.conf
    mount --bind \"$FILES/hosts\" /etc/hosts
    ip link set lo up
    ip link add eth0 type veth peer name peer0
    ip link set peer0 up
    ip addr add 172.30.0.9/24 dev eth0
    ip link set eth0 up
    ip route add default via 172.30.0.1
    for setting in tcp_fwmark_accept fwmark_reflect conf/all/arp_ignore; do
        echo 1 > /proc/sys/net/ipv4/$setting
    done
    echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce
    exec \"$PROXY\" proxy";

/// The token of every session here.
pub fn token() -> Token {
    Token::new("secret")
}

/// A sidecar and what it says.
pub struct Sidecar {
    _init: Child,
    _stdin: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    pub pid: i32,
    files: TempDir,
}

/// The program under test.
pub fn proxy() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("examples/proxy");
    assert!(built.exists(), "cargo builds it with the tests: {}", built.display());
    built
}

impl Sidecar {
    /// Starts one that waits for so many targets.
    pub async fn start(targets: u16) -> Self {
        let files = TempDir::new().unwrap();
        for name in ["resolv.conf", "hosts"] {
            fs::write(files.path().join(name), "the engine's\n").unwrap();
        }
        let mut init = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", SETUP])
            .env("FILES", files.path())
            .env("PROXY", proxy())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = init.stdin.take().unwrap();
        let mut config = serde_json::to_vec(&config(targets)).unwrap();
        config.push(b'\n');
        stdin.write_all(&config).await.unwrap();
        let events = BufReader::new(init.stdout.take().unwrap()).lines();
        let pid = i32::try_from(init.id().unwrap()).unwrap();
        let mut sidecar = Self { _init: init, _stdin: stdin, events, pid, files };
        assert!(matches!(sidecar.event().await, ProxyEvent::Waiting));
        sidecar
    }

    /// What it says next.
    pub async fn event(&mut self) -> ProxyEvent {
        let line = tokio::time::timeout(Duration::from_secs(10), self.events.next_line());
        let line = line.await.expect("nothing was said").unwrap().expect("it ended");
        serde_json::from_str(&line).unwrap()
    }

    /// The name of what it says next, and of whom it speaks.
    pub async fn hears(&mut self) -> String {
        match self.event().await {
            ProxyEvent::Connected => "connected".into(),
            ProxyEvent::Ready(target) => format!("ready {}", target.hostname),
            ProxyEvent::Disconnected { target, .. } => format!("disconnected {target}"),
            ProxyEvent::Reconnected { target, kept: true } => format!("back {target}"),
            ProxyEvent::Reconnected { target, kept: false } => format!("reconnected {target}"),
            ProxyEvent::Refused { target, reason } => format!("refused {target}: {reason}"),
            ProxyEvent::Subscribed(port) => format!("subscribed {}", port.remote),
            ProxyEvent::SubscribeFailed { port, reason } => {
                format!("failed {}: {reason}", port.remote)
            }
            other => format!("{other:?}"),
        }
    }

    /// A process that brings a pipe, and our end of it.
    pub fn bring(&self, target: TargetIndex, container: Option<&str>) -> (Child, HandedPipe) {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-m", "-n"]).arg(proxy());
        command.args(["proxy", "--pipe", &target.to_string()]);
        command.args(container.map(|id| ["--container", id]).into_iter().flatten());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap().into_owned_fd().unwrap();
        let stdout = child.stdout.take().unwrap().into_owned_fd().unwrap();
        (child, HandedPipe::new(stdout, stdin).unwrap())
    }

    /// A file as the app sees it.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.files.path().join(name)).unwrap()
    }

    /// Does something in the app's network.
    pub async fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", self.pid)).unwrap();
        let there = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        while !there.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        there.join().expect("it failed in the app's network")
    }

    /// The app connects to somewhere: where from, and what it is told.
    pub async fn ask(&self) -> (String, String) {
        self.run(|| {
            let far = SocketAddr::from(([198, 51, 100, 7], 80));
            let mut app = TcpStream::connect_timeout(&far, Duration::from_secs(5)).unwrap();
            app.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let from = app.local_addr().unwrap().ip().to_string();
            let mut told = String::new();
            std::io::Read::read_to_string(&mut app, &mut told).unwrap();
            (from, told)
        })
        .await
    }

    /// The app listens.
    pub async fn listen(&self, address: &'static str) -> TcpListener {
        self.run(move || TcpListener::bind(address).unwrap()).await
    }

    /// What the worker may do.
    pub fn worker_capabilities(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.worker())).unwrap();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        u64::from_str_radix(effective.trim(), 16).unwrap()
    }

    /// Kills the worker.
    pub fn kill_worker(&self) {
        kill(Pid::from_raw(self.worker()), Signal::SIGKILL).unwrap();
    }

    fn worker(&self) -> i32 {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = fs::read_to_string(path).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }
}

fn config(targets: u16) -> ProxyConfig {
    ProxyConfig {
        session: "test".into(),
        token: token(),
        agents: Agents::Handed(targets),
        folder: SHARED_FOLDER.into(),
        plane: PlaneKind::Netns(None),
        incoming: Incoming { mode: IncomingMode::Steal, ports: vec![], ignore_ports: vec![] },
        outgoing_tcp: true,
        outgoing_udp: true,
        remote_dns: true,
        env: true,
        hosts: vec!["10.0.0.1 added".into()],
        published_udp: vec![],
        grace: 5,
        log: std::env::var("MIRRORD_LOG").unwrap_or_else(|_| "warn".into()),
    }
}
