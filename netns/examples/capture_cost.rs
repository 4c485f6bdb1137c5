//! What a capture costs the target that is captured: throughput, latency and connections per
//! second of a server, with and without, in alternating rounds.
//!
//!     cargo run --release -p mirrord-netns --example capture_cost [ROUNDS]
//!
//! Needs root; works in namespaces of its own.
#![allow(clippy::unwrap_used)]

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mirrord_netns::{
    Proto, TargetNet,
    capture::Capture,
    reassembly::{Event, Flows, Limits},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
};

const SERVER: &str = "10.78.0.2";
const ROUND: Duration = Duration::from_secs(2);

/// What a client does with the server.
#[derive(Clone, Copy)]
enum Load {
    Upload,
    Download,
    Echo,
    PacedEcho,
    Connect,
}

const LOADS: [(Load, &str); 5] = [
    (Load::Upload, "upload, Gbit/s"),
    (Load::Download, "download, Gbit/s"),
    (Load::Echo, "64-byte echo, µs p50/p99"),
    (Load::PacedEcho, "the same, 500 a second"),
    (Load::Connect, "connect+echo+close, 1/s"),
];

/// One measurement: a rate, or two latencies.
#[derive(Clone, Copy)]
struct Measure(f64, f64);

fn main() {
    let rounds = env::args().nth(1).map_or(5, |text| text.parse().unwrap());
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let client = client_namespace();
    for (load, name) in LOADS {
        let (mut without, mut with, mut notes) = (Vec::new(), Vec::new(), String::new());
        for _ in 0..rounds {
            without.push(round(&client, load));
            let reader = Reader::start();
            with.push(round(&client, load));
            notes = reader.stop();
        }
        println!("{name:28} without {:>16}  with {:>16}   {notes}", show(without), show(with));
    }
}

/// The median of some measurements.
fn show(mut measures: Vec<Measure>) -> String {
    measures.sort_by(|one, other| one.0.total_cmp(&other.0));
    let Measure(first, second) = measures[measures.len() / 2];
    match second {
        0.0 => format!("{first:.1}"),
        _ => format!("{first:.1} / {second:.1}"),
    }
}

/// A namespace with a link to this one, held by a file descriptor.
fn client_namespace() -> Arc<std::fs::File> {
    let (tx, rx) = std::sync::mpsc::channel();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let holder = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let file = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        tx.send((nix::unistd::gettid(), file)).unwrap();
        wait.recv().unwrap();
        // A port can be used again a second after its connection, not a minute.
        std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1").unwrap();
        for words in ["addr add 10.78.0.1/24 dev eth0", "link set eth0 up"] {
            ip(words);
        }
    });
    let (tid, file) = rx.recv().unwrap();
    for words in [
        "link set lo up",
        &format!("link add eth0 type veth peer name eth0 netns {tid}"),
        &format!("addr add {SERVER}/24 dev eth0"),
        "link set eth0 up",
    ] {
        ip(words);
    }
    done.send(()).unwrap();
    holder.join().unwrap();
    Arc::new(file)
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(status.unwrap().success(), "ip {words}");
}

/// Runs a load for a while.
fn round(namespace: &Arc<std::fs::File>, load: Load) -> Measure {
    let listener = TcpListener::bind((SERVER, 8080)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let moved = Arc::new(AtomicU64::new(0));
    let server = {
        let (stop, moved) = (stop.clone(), moved.clone());
        thread::spawn(move || serve(&listener, load, &stop, &moved))
    };
    let namespace = namespace.clone();
    let client = {
        let (stop, moved) = (stop.clone(), moved.clone());
        thread::spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            let server: SocketAddr = (SERVER.parse::<std::net::IpAddr>().unwrap(), 8080).into();
            drive(server, load, &stop, &moved)
        })
    };
    thread::sleep(ROUND / 10);
    let (before, begin) = (moved.load(Ordering::Relaxed), Instant::now());
    thread::sleep(ROUND);
    let per_second =
        (moved.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let mut times = client.join().unwrap();
    server.join().unwrap();
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_nanos() as f64 / 1e3;
    match load {
        Load::Upload | Load::Download => Measure(per_second * 8.0 / 1e9, 0.0),
        Load::Echo | Load::PacedEcho => Measure(at(0.5), at(0.99)),
        Load::Connect => Measure(per_second, 0.0),
    }
}

fn serve(listener: &TcpListener, load: Load, stop: &AtomicBool, moved: &AtomicU64) {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        loop {
            let count = match load {
                Load::Download => stream.write(&buffer).unwrap_or(0),
                _ => stream.read(&mut buffer).unwrap_or(0),
            };
            if count == 0 {
                break;
            }
            match load {
                Load::Upload => drop(moved.fetch_add(count as u64, Ordering::Relaxed)),
                Load::Download => {}
                _ => stream.write_all(&buffer[..count]).unwrap(),
            }
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// The client's side; the times of its echoes.
fn drive(server: SocketAddr, load: Load, stop: &AtomicBool, moved: &AtomicU64) -> Vec<Duration> {
    let mut buffer = vec![0; 256 << 10];
    let mut times = Vec::new();
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        match load {
            Load::Upload => drop(stream.write(&buffer).unwrap()),
            Load::Download => {
                let count = stream.read(&mut buffer).unwrap();
                moved.fetch_add(count as u64, Ordering::Relaxed);
            }
            Load::Echo | Load::PacedEcho => {
                if matches!(load, Load::PacedEcho) {
                    thread::sleep(Duration::from_millis(2));
                }
                let begin = Instant::now();
                echo(&mut stream, &mut buffer).unwrap();
                times.push(begin.elapsed());
            }
            Load::Connect => {
                // A server that has finished already refuses the last one.
                let Ok(next) = TcpStream::connect(server) else { break };
                stream = next;
                if echo(&mut stream, &mut buffer).is_err() {
                    break;
                }
                moved.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    times
}

fn echo(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
    stream.write_all(&buffer[..64])?;
    stream.read_exact(&mut buffer[..64])
}

/// A thread that reads a capture as an agent does, and throws the copy away.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<String>,
}

impl Reader {
    fn start() -> Self {
        let own = vec![SERVER.parse().unwrap()];
        let target = TargetNet { own, ..TargetNet::default() };
        let mut capture = Capture::open(&target).unwrap();
        capture.add(Proto::Tcp, 8080).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = stop.clone();
            thread::spawn(move || read(&mut capture, &stop))
        };
        Self { stop, thread }
    }

    fn stop(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn read(capture: &mut Capture, stop: &AtomicBool) -> String {
    let mut flows = Flows::new(Limits::default());
    let (mut bytes, mut wakes) = (0_u64, 0_u64);
    let begin = cpu_time();
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(capture.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(100_u8)).unwrap();
        wakes += 1;
        while capture.read(&mut flows).unwrap() {
            bytes += drain(&mut flows);
        }
        bytes += drain(&mut flows);
        flows.expire(Instant::now());
    }
    let counts = flows.counts();
    format!(
        "(copied {} MB of {} flows, {} lost, {} packets dropped; {wakes} wakes, {:?} cpu)",
        bytes / 1_000_000,
        counts.opened,
        counts.lost,
        capture.dropped().unwrap(),
        cpu_time() - begin,
    )
}

fn drain(flows: &mut Flows) -> u64 {
    std::iter::from_fn(|| flows.next())
        .map(|event| match event {
            Event::Data { bytes, .. } => bytes.len() as u64,
            _ => 0,
        })
        .sum()
}

fn cpu_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).unwrap().into()
}
