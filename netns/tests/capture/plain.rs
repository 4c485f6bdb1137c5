//! The same with the older kind of filter, where no BPF program may be loaded.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream, UdpSocket},
    thread,
};

use mirrord_netns::Proto;

use super::{
    record::{End, Recorder, plain_capture},
    support::{TARGET, TARGET6, listen, with_client},
};

#[test]
fn connections_to_a_chosen_port_are_copied_and_others_are_not() {
    const COUNT: usize = 100;
    with_client(|client| {
        for address in [TARGET, TARGET6] {
            let (listener, server) = listen(address);
            let (other, unwanted) = listen(address);
            let mut capture = plain_capture(&[(Proto::Tcp, unwanted.port())]);
            capture.add(Proto::Tcp, server.port()).unwrap();
            capture.remove(Proto::Tcp, unwanted.port()).unwrap();
            let recorder = Recorder::of(capture);
            let target = thread::spawn(move || {
                for listener in [other, listener] {
                    for _ in 0..COUNT {
                        let mut stream = listener.accept().unwrap().0;
                        stream.read_to_end(&mut Vec::new()).unwrap();
                    }
                }
            });
            client.run(move || {
                for to in [unwanted, server] {
                    for number in 0..COUNT {
                        let mut stream = TcpStream::connect(to).unwrap();
                        stream.write_all(number.to_string().repeat(9000).as_bytes()).unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                    }
                }
            });
            target.join().unwrap();
            let state = recorder.until("all of them", |state| {
                state.flows.values().filter(|flow| flow.ends == [End::Fin]).count() == COUNT
            });
            assert!(state.flows.values().all(|flow| flow.server == server), "{:?}", state.counts);
            let bytes: usize = state.flows.values().map(|flow| flow.bytes.len()).sum();
            assert_eq!(bytes, 9000 * (10 + 2 * 90));
        }
    });
}

#[test]
fn datagrams_to_a_chosen_port_are_copied() {
    with_client(|client| {
        let recorder = Recorder::of(plain_capture(&[(Proto::Udp, 5353)]));
        client.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            // More than a packet, so that it comes in pieces.
            for (port, payload) in [(5354, vec![1; 10]), (5353, vec![2; 4000]), (5353, vec![3; 10])]
            {
                socket.send_to(&payload, (TARGET, port)).unwrap();
            }
        });
        let state = recorder.until("both", |state| state.datagrams.len() >= 2);
        let mut lengths: Vec<_> = state.datagrams.iter().map(|sent| sent.payload.len()).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [10, 4000]);
        assert!(state.datagrams.iter().all(|sent| sent.server.port() == 5353));
    });
}
