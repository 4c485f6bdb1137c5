//! How connections begin and end in a capture.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use mirrord_netns::{
    Proto,
    reassembly::{Flows, Limits},
};
use socket2::SockRef;

use super::{
    record::{Copied, End, Recorder, capture},
    support::{OTHER, TARGET, TARGET6, listen, readable, with_client},
};

/// Sends all of it, closes, and waits until the other side has closed too.
fn send(mut stream: TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// Reads all that a client sends, then closes.
fn take(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_connection_is_copied_from_begin_to_end() {
    with_client(|client| {
        for address in [TARGET, TARGET6] {
            let (listener, server) = listen(address);
            let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
            let stream = client.connect(server);
            let from = stream.local_addr().unwrap();
            let target = thread::spawn(move || take(listener.accept().unwrap().0));
            send(stream, b"hello");
            assert_eq!(target.join().unwrap(), b"hello");
            let copied = recorder.one("the connection", End::Fin);
            assert_eq!((copied.client, copied.server), (from, server));
            assert_eq!(copied.bytes, b"hello");
        }
    });
}

#[test]
fn a_thousand_short_connections_are_copied() {
    const COUNT: usize = 1000;
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        let target = thread::spawn(move || {
            for _ in 0..COUNT {
                take(listener.accept().unwrap().0);
            }
        });
        client.run(move || {
            for number in 0..COUNT {
                send(TcpStream::connect(server).unwrap(), number.to_string().as_bytes());
            }
        });
        target.join().unwrap();
        let state = recorder.until("all of them", |state| {
            state.flows.values().filter(|flow| flow.ends == [End::Fin]).count() == COUNT
        });
        let copied = state.flows.into_values().map(|flow| String::from_utf8(flow.bytes).unwrap());
        let mut numbers: Vec<usize> = copied.map(|text| text.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
        assert_eq!((state.dropped, state.counts.skipped), (0, 0));
    });
}

#[test]
fn a_server_that_speaks_first_sees_the_connection_at_once() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        let _stream = client.connect(server);
        let _accepted = listener.accept().unwrap();
        recorder.until("the handshake", |state| state.flows.len() == 1);
    });
}

#[test]
fn a_half_closed_connection_ends_with_fin_alone() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        let mut stream = client.connect(server);
        let (mut accepted, _) = listener.accept().unwrap();
        stream.write_all(b"question").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let copied = recorder.one("the half-close", End::Fin);
        assert_eq!(copied.bytes, b"question");
        accepted.read_exact(&mut [0; 8]).unwrap();
        accepted.write_all(&[b'!'; 10_000]).unwrap();
        drop(accepted);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), 10_000);
        let state = recorder.until("the end", |_| true);
        assert_eq!(state.flows.into_values().next().unwrap().ends, [End::Fin]);
    });
}

#[test]
fn a_reset_is_a_reset() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        let mut stream = client.connect(server);
        let _accepted = listener.accept().unwrap();
        stream.write_all(b"never mind").unwrap();
        recorder.until("the data", |state| {
            state.flows.values().any(|flow| flow.bytes == b"never mind")
        });
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        assert_eq!(recorder.one("the reset", End::Reset).ends, [End::Reset]);
    });
}

#[test]
fn a_reset_after_half_close_is_both() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        let stream = client.connect(server);
        let (mut accepted, _) = listener.accept().unwrap();
        drop(stream);
        recorder.one("the close", End::Fin);
        let _ = accepted.write_all(b"nobody reads this");
        assert_eq!(recorder.one("the reset", End::Reset).ends, [End::Fin, End::Reset]);
    });
}

#[test]
fn a_connection_from_before_is_skipped_and_the_next_is_not() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let mut before = client.connect(server);
        let (mut accepted, _) = listener.accept().unwrap();
        before.write_all(b"one").unwrap();
        accepted.read_exact(&mut [0; 3]).unwrap();
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        for _ in 0..10 {
            before.write_all(b"two").unwrap();
            accepted.read_exact(&mut [0; 3]).unwrap();
        }
        recorder.until("the old connection", |state| state.counts.skipped == 1);
        let stream = client.connect(server);
        let target = thread::spawn(move || take(listener.accept().unwrap().0));
        send(stream, b"three");
        target.join().unwrap();
        assert_eq!(recorder.one("the new connection", End::Fin).bytes, b"three");
        let state = recorder.until("", |_| true);
        assert_eq!((state.flows.len(), state.counts.skipped), (1, 1));
    });
}

#[test]
fn the_same_ends_can_connect_again() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        let from: SocketAddr = "10.77.0.1:45678".parse().unwrap();
        for round in 1..=5 {
            let stream = client.run(move || {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&from.into())?;
                socket.connect(&server.into())?;
                Ok::<_, std::io::Error>(TcpStream::from(socket))
            });
            let mut stream = stream.unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            stream.write_all(&[round]).unwrap();
            accepted.read_exact(&mut [0]).unwrap();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            drop(stream);
            accepted.read(&mut [0]).unwrap_err();
        }
        let state = recorder.until("five connections", |state| {
            state.flows.values().filter(|flow| flow.ends == [End::Reset]).count() == 5
        });
        let mut rounds: Vec<_> = state.flows.into_values().map(|flow| flow.bytes).collect();
        rounds.sort_unstable();
        assert_eq!(rounds, [[1], [2], [3], [4], [5]]);
    });
}

#[test]
fn what_is_not_the_targets_or_not_chosen_is_left_out() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let (other, elsewhere) = listen(OTHER);
        let (second, unchosen) = listen(TARGET);
        let ports = [server.port(), elsewhere.port()].map(|port| (Proto::Tcp, port));
        let recorder = Recorder::start(&ports);
        for (listener, server) in [(other, elsewhere), (second, unchosen), (listener, server)] {
            let stream = client.connect(server);
            let target = thread::spawn(move || take(listener.accept().unwrap().0));
            send(stream, server.to_string().as_bytes());
            target.join().unwrap();
        }
        let copied = recorder.one("the chosen one", End::Fin);
        assert_eq!(copied.bytes, server.to_string().as_bytes());
        assert_eq!(recorder.until("", |_| true).flows.len(), 1);
    });
}

#[test]
fn a_refused_connection_opens_nothing() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        drop(listener);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        client.run(move || TcpStream::connect(server).unwrap_err());
        let (listener, _) = listen(TARGET);
        drop(listener);
        let state = recorder.until("the SYN", |state| state.counts.opening == 1);
        assert_eq!(state.counts.opened, 0);
    });
}

#[test]
fn a_port_that_is_removed_ends_its_flows() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        let mut stream = client.connect(server);
        let (mut accepted, _) = listener.accept().unwrap();
        recorder.until("the connection", |state| state.flows.len() == 1);
        recorder.change(|capture| capture.remove(Proto::Tcp, server.port()).unwrap());
        recorder.one("its end", End::Lost);
        stream.write_all(b"unseen").unwrap();
        accepted.read_exact(&mut [0; 6]).unwrap();
        recorder.change(|capture| capture.add(Proto::Tcp, server.port()).unwrap());
        let stream = client.connect(server);
        let target = thread::spawn(move || take(listener.accept().unwrap().0));
        send(stream, b"seen");
        target.join().unwrap();
        assert_eq!(recorder.one("the next connection", End::Fin).bytes, b"seen");
    });
}

#[test]
fn a_capture_sleeps_while_nothing_comes() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let mut capture = capture(&[(Proto::Tcp, server.port())]);
        let mut flows = Flows::new(Limits::default());
        let _stream = client.connect(server);
        let _accepted = listener.accept().unwrap();
        assert!(readable(&capture, Duration::from_secs(2)));
        let mut wakes = 0;
        while readable(&capture, Duration::from_millis(300)) {
            while capture.read(&mut flows).unwrap() {}
            wakes += 1;
        }
        assert!((1..50).contains(&wakes), "woken {wakes} times");
        assert_eq!(flows.counts().opened, 1);
        let _again = client.connect(server);
        assert!(readable(&capture, Duration::from_secs(2)));
    });
}

#[test]
fn connections_beyond_those_that_may_begin_are_left_out_whole_and_counted() {
    with_client(|client| {
        let (listener, server) = listen(TARGET);
        let recorder = Recorder::start(&[(Proto::Tcp, server.port())]);
        let target = thread::spawn(move || {
            listener.incoming().take(6).map(|stream| take(stream.unwrap()).len()).sum::<usize>()
        });
        recorder.change(|capture| capture.admit(Some(2)).unwrap());
        (0..5).for_each(|_| send(client.connect(server), b"crowded"));
        recorder.change(|capture| {
            assert_eq!(capture.left_out().unwrap(), 3);
            capture.admit(None).unwrap();
        });
        send(client.connect(server), b"at last");
        assert_eq!(target.join().unwrap(), 6 * 7, "the target has all of them");
        let last = |flow: &Copied| flow.bytes == b"at last" && flow.ends == [End::Fin];
        let state = recorder.until("the last", |state| state.flows.values().any(last));
        assert_eq!((state.flows.len(), state.counts.skipped), (3, 0));
    });
}
