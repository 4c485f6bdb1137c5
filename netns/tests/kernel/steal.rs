//! Taking the target's traffic, and giving it back.

use std::{
    env,
    io::{BufRead, BufReader, ErrorKind},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mirrord_netns::{
    Proto, Steal, TargetNet,
    privileges::{Capability, keep_only},
    spoof::PacketSender,
};

use crate::support::*;

/// Set for the process that steals and is killed.
const CHILD: &str = "MIRRORD_TEST_STEAL_PORT";
/// The port that it steals without a program.
const WITHOUT_BPF: u16 = 8082;

/// Runs a test in a target's namespace; its clients are outside.
fn in_target(test: impl FnOnce(&Outside) + Send) {
    isolated(|| test(&link()));
}

fn attach() -> Steal {
    Steal::attach(&target()).expect("the program")
}

/// The program, and what stands in for it where none may be loaded.
fn both_ways(test: impl Fn(&Outside, Steal) + Sync) {
    in_target(|outside| test(outside, attach()));
    in_target(|outside| test(outside, Steal::by_table(&target()).expect("the table")));
}

fn target() -> TargetNet {
    TargetNet { own: vec![address(OWN)], ..TargetNet::default() }
}

#[test]
fn new_connections_to_a_chosen_port_come_to_us_and_others_do_not() {
    both_ways(|outside, mut steal| {
        let original =
            ["0.0.0.0:8080", "0.0.0.0:8081"].map(|place| TcpListener::bind(place).unwrap());
        let before = outside.run(|| connect(socket(OWN, 8080)).unwrap());
        let kept = accept(&original[0]);
        steal.add(Proto::Tcp, 8080).unwrap();
        let client = outside.run(|| connect(socket(OWN, 8080)).unwrap());
        let ours = accept(&steal.tcp()[0]);
        assert_eq!(ours.local_addr().unwrap(), socket(OWN, 8080));
        assert_eq!(ours.peer_addr().unwrap(), client.local_addr().unwrap());
        talk(&client, &ours);
        talk(&before, &kept);
        outside.run(|| connect(socket(OWN, 8081)).unwrap());
        accept(&original[1]);
        steal.remove(Proto::Tcp, 8080).unwrap();
        steal.remove(Proto::Tcp, 8080).unwrap();
        outside.run(|| connect(socket(OWN, 8080)).unwrap());
        accept(&original[0]);
    });
}

#[test]
fn a_server_that_is_started_anew_binds_its_port_while_stolen_connections_stand() {
    both_ways(|outside, mut steal| {
        let original = TcpListener::bind("0.0.0.0:8080").unwrap();
        steal.add(Proto::Tcp, 8080).unwrap();
        let _client = outside.run(|| connect(socket(OWN, 8080)).unwrap());
        let _ours = accept(&steal.tcp()[0]);
        drop(original);
        until_unshared(|| TcpListener::bind("0.0.0.0:8080").ok());
    });
}

#[test]
fn the_target_can_still_talk_to_itself() {
    in_target(|_| {
        let original = TcpListener::bind("0.0.0.0:8080").unwrap();
        let mut steal = attach();
        steal.add(Proto::Tcp, 8080).unwrap();
        for place in ["127.0.0.1", OWN] {
            let client = connect(socket(place, 8080)).unwrap();
            talk(&client, &accept(&original));
        }
        let refused = connect(steal.tcp()[0].local_addr().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn ports_can_be_chosen_after_all_other_capabilities_are_dropped() {
    in_target(|outside| {
        let mut steal = attach();
        keep_only(&[Capability::Bpf]).unwrap();
        steal.add(Proto::Tcp, 80).unwrap();
        let client = outside.run(|| connect(socket(OWN, 80)).unwrap());
        talk(&client, &accept(&steal.tcp()[0]));
        steal.remove(Proto::Tcp, 80).unwrap();
    });
}

#[test]
fn a_port_that_the_target_does_not_listen_on_can_be_taken() {
    both_ways(|outside, mut steal| {
        steal.add(Proto::Tcp, 80).unwrap();
        let client = outside.run(|| connect(socket(OWN, 80)).unwrap());
        talk(&client, &accept(&steal.tcp()[0]));
        let refused = outside.run(|| connect(socket(OWN, 81)).unwrap_err());
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn datagrams_are_taken_and_answered_from_the_targets_port() {
    both_ways(|outside, mut steal| {
        let original = udp(socket("0.0.0.0", 5353));
        steal.add(Proto::Udp, 5353).unwrap();
        let client = outside.run(|| udp(socket(BEYOND, 0)));
        ip(&format!("route add {BEYOND} via {GATEWAY} table main proto static metric 5"));
        client.send_to(b"question", socket(OWN, 5353)).unwrap();
        let (datagram, payload) = receive(&steal.udp()[0]);
        assert_eq!((datagram.from, datagram.to), (client.local_addr().unwrap(), socket(OWN, 5353)));
        assert_eq!(payload, b"question");
        PacketSender::open(0).unwrap().send(datagram.to, datagram.from, b"answer").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (6, socket(OWN, 5353)));
        drop(steal);
        let length = until_unshared(|| {
            client.send_to(b"again", socket(OWN, 5353)).unwrap();
            Some(original.recv_from(&mut buffer).ok()?.0)
        });
        assert_eq!(length, 5);
    });
}

/// A process that another test starts shares our descriptors until it executes its program: what
/// is closed here lives as long.
fn until_unshared<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < deadline, "it is still held");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn when_the_stealing_process_is_killed_the_very_next_connection_is_the_targets() {
    killed(8080);
}

#[test]
fn when_it_is_killed_its_table_goes_as_well() {
    killed(WITHOUT_BPF);
}

fn killed(port: u16) {
    in_target(|outside| {
        let original = TcpListener::bind(("0.0.0.0", port)).unwrap();
        original.set_nonblocking(true).unwrap();
        let mut child = stealing_process(port);
        for _ in 0..3 {
            outside.run(move || connect(socket(OWN, port)).unwrap());
            assert_eq!(original.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let client = outside.run(move || connect(socket(OWN, port)).unwrap());
        talk(&client, &accept(&original));
    });
}

fn stealing_process(port: u16) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "steal::child_that_steals_until_it_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, port.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("stealing")));
    child
}

#[test]
fn child_that_steals_until_it_is_killed() {
    let Some(port) = env::var_os(CHILD) else {
        return;
    };
    let port = port.to_str().unwrap().parse().unwrap();
    let mut steal = match port {
        WITHOUT_BPF => Steal::by_table(&target()).expect("the table"),
        _ => attach(),
    };
    steal.add(Proto::Tcp, port).unwrap();
    println!("stealing");
    std::thread::park();
}
