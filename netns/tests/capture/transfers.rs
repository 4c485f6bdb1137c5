//! Much data at once: what is copied is right, or said to be lost; the target is never held up.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use mirrord_netns::{
    Proto,
    capture::Capture,
    reassembly::{Event, Flows, Limits},
};

use super::{
    record::{End, Recorder, capture},
    support::{Client, TARGET, listen, readable, shape, with_client},
};

/// Bytes that look like no others, over and over; a prime, so that no packet boundary fits it.
const PATTERN: usize = 1_000_003;

fn pattern() -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(PATTERN).collect()
}

/// Checks that bytes which come in pieces are the pattern.
struct Check {
    pattern: Vec<u8>,
    len: usize,
}

impl Check {
    fn new() -> Self {
        Self { pattern: pattern(), len: 0 }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.len % PATTERN;
            let part = bytes.len().min(PATTERN - at);
            assert!(bytes[..part] == self.pattern[at..at + part], "wrong at {}", self.len);
            bytes = &bytes[part..];
            self.len += part;
        }
    }
}

/// Sends the pattern up to a length, then closes its side.
fn send(mut stream: &TcpStream, mut len: usize) {
    let pattern = pattern();
    while len > 0 {
        let part = len.min(PATTERN);
        stream.write_all(&pattern[..part]).unwrap();
        len -= part;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Reads a connection to its end, checks it, and says how much it was.
fn receive(listener: &TcpListener) -> usize {
    let (mut stream, _) = listener.accept().unwrap();
    let mut check = Check::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return check.len,
            count => check.take(&buffer[..count]),
        }
    }
}

/// Transfers from the client to the target; gives the time that it took.
fn transfer(client: &Client, listener: &TcpListener, server: SocketAddr, len: usize) -> Duration {
    let stream = client.connect(server);
    thread::scope(|scope| {
        let begin = Instant::now();
        let target = scope.spawn(|| receive(listener));
        send(&stream, len);
        assert_eq!(target.join().unwrap(), len);
        begin.elapsed()
    })
}

/// Reads a capture until its one flow is over; gives what came, and how it ended.
fn follow(mut capture: Capture) -> (usize, End) {
    let mut flows = Flows::new(Limits::default());
    let mut check = Check::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        readable(&capture, Duration::from_millis(100));
        let mut more = true;
        while more {
            more = capture.read(&mut flows).unwrap();
            flows.expire(Instant::now());
            while let Some(event) = flows.next() {
                match event {
                    Event::Data { bytes, .. } => check.take(&bytes),
                    Event::Fin { .. } => return (check.len, End::Fin),
                    Event::Reset { .. } => return (check.len, End::Reset),
                    Event::Lost { .. } => return (check.len, End::Lost),
                    _ => {}
                }
            }
        }
    }
    panic!("no end after {} bytes: {:?}", check.len, flows.counts());
}

#[test]
fn two_hundred_megabytes_are_copied_or_said_to_be_lost() {
    const LEN: usize = 200_000_000;
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let capture = capture(&[(Proto::Tcp, server.port())]);
        let copy = thread::spawn(move || follow(capture));
        let took = transfer(client, &listener, server, LEN);
        let (len, end) = copy.join().unwrap();
        eprintln!("{len} of {LEN} bytes copied while they took {took:?}, then {end:?}");
        assert!((len, end) == (LEN, End::Fin) || (len < LEN && end == End::Lost));
    });
}

#[test]
fn what_arrives_slowly_is_copied_without_loss() {
    const LEN: usize = 100_000_000;
    with_client(|client| {
        if !shape(client, "tbf rate 2gbit burst 1mb latency 50ms") {
            return;
        }
        let (listener, server) = listen(TARGET);
        let capture = capture(&[(Proto::Tcp, server.port())]);
        let copy = thread::spawn(move || follow(capture));
        transfer(client, &listener, server, LEN);
        assert_eq!(copy.join().unwrap(), (LEN, End::Fin));
    });
}

#[test]
fn a_bad_line_changes_nothing() {
    const LEN: usize = 5_000_000;
    with_client(|client| {
        if !shape(client, "netem delay 2ms 1ms loss 1% duplicate 1% reorder 10% 50%") {
            return;
        }
        let (listener, server) = listen(TARGET);
        let capture = capture(&[(Proto::Tcp, server.port())]);
        let copy = thread::spawn(move || follow(capture));
        transfer(client, &listener, server, LEN);
        assert_eq!(copy.join().unwrap(), (LEN, End::Fin));
    });
}

#[test]
fn damaged_packets_are_not_copied() {
    const LEN: usize = 2_000_000;
    with_client(|client| {
        if !shape(client, "netem corrupt 2%") {
            return;
        }
        let (listener, server) = listen(TARGET);
        let capture = capture(&[(Proto::Tcp, server.port())]);
        let copy = thread::spawn(move || follow(capture));
        transfer(client, &listener, server, LEN);
        assert_eq!(copy.join().unwrap(), (LEN, End::Fin));
    });
}

#[test]
fn a_reader_that_sleeps_costs_the_target_nothing() {
    const LEN: usize = 200_000_000;
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let mut capture = capture(&[(Proto::Tcp, server.port())]);
        transfer(client, &listener, server, LEN);
        assert!(capture.dropped().unwrap() > 0);
        assert_eq!(follow(capture).1, End::Lost);
    });
}

#[test]
fn a_flow_that_nobody_wants_is_not_copied_any_further() {
    const LEN: usize = 100_000_000;
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        let before = client.connect(server);
        let (mut accepted, _) = listener.accept().unwrap();
        recorder.until("the connection", |state| state.flows.len() == 1);
        recorder.change(|capture| capture.remove(Proto::Tcp, server.port()).unwrap());
        recorder.one("its end", End::Lost);
        recorder.change(|capture| capture.add(Proto::Tcp, server.port()).unwrap());
        let target = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while accepted.read(&mut buffer).unwrap() > 0 {}
        });
        send(&before, LEN);
        target.join().unwrap();
        let state = recorder.until("nothing", |_| true);
        assert_eq!((state.dropped, state.counts.queued), (0, 0));
        assert!(state.flows.values().all(|flow| flow.bytes.is_empty()));
    });
}
