//! The agent's process, its pod and its targets.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mirrord_agent::run;
use mirrord_netns::enter::Process;
use mirrord_netns::privileges::{Capability, has, keep_only};
use mirrord_protocol::Token;
use mirrord_protocol::control::{AgentConfig, AgentEvent, Door};
use nix::sched::{CloneFlags, unshare};

use crate::container::Container;

pub const TOKEN: &str = "the session's token";

/// Set for the process that is the agent; says whether it keeps its capabilities.
const AGENT: &str = "MIRRORD_TEST_AGENT";

/// An agent in the calling thread's network namespace, which is its pod's.
pub struct Agent {
    child: Child,
    /// Its standard input and output.
    control: BufReader<TcpStream>,
    pub address: SocketAddr,
}

impl Agent {
    /// Starts one that waits so many seconds for tunnels, and waits until it listens.
    pub fn start(idle_timeout: u64) -> Self {
        Self::start_with(config(idle_timeout), "all capabilities")
    }

    /// Starts one that has no capability.
    pub fn start_powerless() -> Self {
        Self::start_with(config(60), "no capability")
    }

    /// Starts one that leaves these clients to the target.
    pub fn start_sparing(nodes: &[IpAddr]) -> Self {
        let config = AgentConfig { exclude_probes: Some(nodes.to_vec()), ..config(60) };
        Self::start_with(config, "all capabilities")
    }

    fn start_with(config: AgentConfig, capabilities: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mut control, theirs) = connection();
        let both = [theirs.try_clone().unwrap(), theirs].map(|end| Stdio::from(OwnedFd::from(end)));
        let [stdin, stdout] = both;
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3>&2 2> /dev/null"])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "agent::process", "--nocapture", "--test-threads=1"])
            .env(AGENT, capabilities)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        writeln!(control, "{}", serde_json::to_string(&config).unwrap()).unwrap();
        let mut agent = Self { child, control: BufReader::new(control), address };
        assert!(matches!(agent.event(), AgentEvent::Listening));
        agent
    }

    /// The next that it says; the harness around it talks too.
    pub fn event(&mut self) -> AgentEvent {
        loop {
            let mut line = String::new();
            assert_ne!(self.control.read_line(&mut line).unwrap(), 0, "the agent has ended");
            if let Some(begin) = line.find('{') {
                return serde_json::from_str(&line[begin..]).unwrap();
            }
        }
    }

    /// Leaves it alone, as a CLI that is gone does.
    pub fn leave_alone(&self) {
        self.control.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Tells it that the session is over.
    pub fn dismiss(&self) {
        self.control.get_ref().write_all(b"\n").unwrap();
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the agent does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(idle_timeout: u64) -> AgentConfig {
    AgentConfig {
        session: "test".into(),
        token: Token::new(TOKEN),
        door: Door::Listener,
        idle_timeout,
        alone_timeout: 1,
        grace: 5,
        exclude_probes: None,
        log: "debug".into(),
    }
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Not a test: the agent's process.
#[test]
fn process() {
    let Ok(capabilities) = env::var(AGENT) else { return };
    if capabilities == "no capability" {
        keep_only(&[]).unwrap();
    }
    let ended = format!("{:?}", run());
    assert_eq!(ended, format!("{:?}", std::process::ExitCode::SUCCESS));
}

/// Runs a test in a fresh network namespace: that of the agent's pod.
pub fn in_pod(test: impl FnOnce() + Send) {
    if !has(Capability::SysAdmin) || !has(Capability::Bpf) {
        assert!(env::var_os("CI").is_none(), "CI must run these tests as root");
        eprintln!("SKIPPED: needs root");
        return;
    }
    let joined = thread::scope(|scope| {
        let body = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            test();
        };
        scope.spawn(body).join()
    });
    if let Err(panic) = joined {
        std::panic::resume_unwind(panic);
    }
}

/// A target with namespaces of its own, at 10.99.N.2; the pod is linked to it as 10.99.N.1.
pub fn target(name: &str, n: u8) -> Container {
    let container = Container::start(name, &["-n", "-u", "-p", "-f", "--mount-proc"]);
    let pid = Process::find(&container.id).unwrap().pid();
    ip(&format!("link add to{n} type veth peer name eth0 netns {pid}"));
    ip(&format!("addr add 10.99.{n}.1/24 dev to{n}"));
    ip(&format!("link set to{n} up"));
    inside(&container, move || {
        ip(&format!("addr add 10.99.{n}.2/24 dev eth0"));
        ip("link set eth0 up");
    });
    container
}

/// Runs something in a target's network namespace; a socket that is made there stays there.
pub fn inside<T: Send + 'static>(
    container: &Container,
    job: impl FnOnce() -> T + Send + 'static,
) -> T {
    let pid = Process::find(&container.id).unwrap().pid();
    let network = File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let inside = move || {
        nix::sched::setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        job()
    };
    thread::spawn(inside).join().unwrap()
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
