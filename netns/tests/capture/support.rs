//! A target's namespace, a client's, and the link between them.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use mirrord_netns::privileges::{Capability, has};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
};

/// The target's addresses.
pub const TARGET: &str = "10.77.0.2";
pub const TARGET6: &str = "fd77::2";
/// An address that stands in the target's namespace but is not the target's.
pub const OTHER: &str = "10.77.0.3";
/// The client's addresses.
pub const CLIENT: &str = "10.77.0.1";

type Job = Box<dyn FnOnce() + Send>;

/// A thread in the client's namespace.
pub struct Client {
    jobs: mpsc::Sender<Job>,
}

impl Client {
    /// Runs something in the client's namespace. A socket that is made there stays there.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tx, rx) = mpsc::channel();
        let job = Box::new(move || drop(tx.send(job())));
        self.jobs.send(job).unwrap();
        rx.recv().expect("the job failed")
    }

    /// Connects from the client's namespace.
    pub fn connect(&self, to: SocketAddr) -> TcpStream {
        let stream = self.run(move || TcpStream::connect_timeout(&to, Duration::from_secs(5)));
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

/// Runs a test in the target's namespace, linked to a client's.
pub fn with_client(test: impl FnOnce(&Client) + Send) {
    if !has(Capability::SysAdmin) || !has(Capability::Bpf) {
        assert!(env::var_os("CI").is_none(), "CI must run these tests as root");
        eprintln!("SKIPPED: needs root");
        return;
    }
    let joined = thread::scope(|scope| {
        let body = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            test(&link());
        };
        scope.spawn(body).join()
    });
    if let Err(panic) = joined {
        std::panic::resume_unwind(panic);
    }
}

/// Makes the client's namespace, and the link to it.
fn link() -> Client {
    let (jobs, rx) = mpsc::channel::<Job>();
    let (tid_tx, tid_rx) = mpsc::channel();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tid_tx.send(nix::unistd::gettid()).unwrap();
        rx.into_iter().for_each(|job| job());
    });
    let client = Client { jobs };
    let tid = tid_rx.recv().unwrap();
    ip("link set lo up");
    ip(&format!("link add eth0 type veth peer name eth0 netns {tid}"));
    for address in [TARGET, OTHER] {
        ip(&format!("addr add {address}/24 dev eth0"));
    }
    ip(&format!("addr add {TARGET6}/64 dev eth0 nodad"));
    ip("link set eth0 up");
    client.run(|| {
        ip(&format!("addr add {CLIENT}/24 dev eth0"));
        ip("addr add fd77::1/64 dev eth0 nodad");
        ip("link set eth0 up");
    });
    client
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) {
    run("ip", arguments).expect("ip");
}

/// Has the client's link behave in some way; false, and loud, if this kernel cannot.
pub fn shape(client: &Client, discipline: &'static str) -> bool {
    let arguments = format!("qdisc add dev eth0 root {discipline}");
    match client.run(move || run("tc", &arguments)) {
        Ok(()) => true,
        Err(said) => {
            eprintln!("SKIPPED: tc: {said}");
            false
        }
    }
}

/// Runs a program in this thread's namespace; what it says when it fails.
fn run(program: &str, arguments: &str) -> Result<(), String> {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.expect("iproute2");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A listener in the target's namespace.
pub fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let address = SocketAddr::new(address.parse().unwrap(), 0);
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Whether something becomes readable in this time.
pub fn readable(fd: &impl AsFd, time: Duration) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(time).unwrap();
    poll(&mut fds, timeout).unwrap() > 0
}
