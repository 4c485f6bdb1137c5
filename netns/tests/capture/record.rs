//! Reads a capture as the agent does, and remembers what it said.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mirrord_netns::{
    Proto, TargetNet,
    capture::{Capture, CaptureError},
    reassembly::{Counts, Event, FlowId, Flows, Limits},
};

use super::support::{TARGET, TARGET6, readable};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a flow said so far.
#[derive(Debug, Clone)]
pub struct Copied {
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub bytes: Vec<u8>,
    pub ends: Vec<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
    Lost,
}

/// A datagram that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub payload: Vec<u8>,
}

#[derive(Debug, Default, Clone)]
pub struct State {
    pub flows: HashMap<FlowId, Copied>,
    pub datagrams: Vec<Sent>,
    pub counts: Counts,
    pub dropped: u64,
}

/// A thread that reads a capture.
pub struct Recorder {
    state: Arc<(Mutex<State>, Condvar)>,
    capture: Arc<Mutex<Capture>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// A capture of the target's addresses.
pub fn capture(ports: &[(Proto, u16)]) -> Capture {
    opened(Capture::open, ports)
}

/// The same with the older kind of filter.
pub fn plain_capture(ports: &[(Proto, u16)]) -> Capture {
    opened(Capture::open_plain, ports)
}

fn opened(
    open: fn(&TargetNet) -> Result<Capture, CaptureError>,
    ports: &[(Proto, u16)],
) -> Capture {
    let own = [TARGET, TARGET6].map(|address| address.parse().unwrap());
    let target = TargetNet { own: own.to_vec(), ..TargetNet::default() };
    let mut capture = open(&target).unwrap();
    for (proto, port) in ports {
        capture.add(*proto, *port).unwrap();
    }
    capture
}

impl Recorder {
    /// Begins to record these ports, in the calling thread's namespace.
    pub fn start(ports: &[(Proto, u16)]) -> Self {
        Self::of(capture(ports))
    }

    /// Begins to record.
    pub fn of(capture: Capture) -> Self {
        let state = Arc::new((Mutex::default(), Condvar::new()));
        let capture = Arc::new(Mutex::new(capture));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = {
            let (state, capture, stop) = (state.clone(), capture.clone(), stop.clone());
            thread::spawn(move || read(&state, &capture, &stop))
        };
        Self { state, capture, stop, reader: Some(reader) }
    }

    /// Changes the capture while it is read.
    pub fn change(&self, change: impl FnOnce(&mut Capture)) {
        change(&mut self.capture.lock().unwrap());
    }

    /// Waits until what was recorded is as wanted, and gives it.
    pub fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) -> State {
        let (state, changed) = &*self.state;
        let deadline = Instant::now() + PATIENCE;
        let mut state = state.lock().unwrap();
        while !wanted(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: {} flows, {:?}", state.flows.len(), state.counts);
            state = changed.wait_timeout(state, left.min(Duration::from_millis(50))).unwrap().0;
        }
        state.clone()
    }

    /// Waits until one flow is over, and gives it.
    pub fn one(&self, what: &str, end: End) -> Copied {
        let ended = |flow: &Copied| flow.ends.last() == Some(&end);
        let state = self.until(what, |state| state.flows.values().any(ended));
        state.flows.into_values().find(ended).unwrap()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read(state: &(Mutex<State>, Condvar), capture: &Mutex<Capture>, stop: &AtomicBool) {
    let mut flows = Flows::new(Limits::default());
    let fd = {
        let capture = capture.lock().unwrap();
        std::os::fd::AsFd::as_fd(&*capture).try_clone_to_owned().unwrap()
    };
    while !stop.load(Ordering::Relaxed) {
        readable(&fd, Duration::from_millis(100));
        loop {
            let mut capture = capture.lock().unwrap();
            let more = capture.read(&mut flows).unwrap();
            let dropped = capture.dropped().unwrap();
            flows.expire(Instant::now());
            let mut now = state.0.lock().unwrap();
            while let Some(event) = flows.next() {
                now.note(event);
            }
            now.counts = flows.counts();
            now.dropped += dropped;
            state.1.notify_all();
            if !more {
                break;
            }
        }
    }
}

impl State {
    fn note(&mut self, event: Event) {
        match event {
            Event::Opened { flow, client, server } => {
                let copied = Copied { client, server, bytes: Vec::new(), ends: Vec::new() };
                assert!(self.flows.insert(flow, copied).is_none(), "{flow:?} opened twice");
            }
            Event::Data { flow, bytes } => {
                let copied = self.flows.get_mut(&flow).unwrap();
                assert_eq!(copied.ends, [], "data after the end");
                copied.bytes.extend_from_slice(&bytes);
            }
            Event::Fin { flow } => self.end(flow, End::Fin),
            Event::Reset { flow } => self.end(flow, End::Reset),
            Event::Lost { flow } => self.end(flow, End::Lost),
            Event::Datagram { client, server, payload } => {
                self.datagrams.push(Sent { client, server, payload: payload.to_vec() })
            }
        }
    }

    fn end(&mut self, flow: FlowId, end: End) {
        self.flows.get_mut(&flow).unwrap().ends.push(end);
    }
}
