//! Echo requests of the app, and protocols that are not carried.

use mirrord_netns::calls::Heard;
use mirrord_netns::{MARK_TO_APP, spoof::PacketSender};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::*;

fn ping() -> Socket {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)).unwrap()
}

#[test]
fn an_echo_request_to_elsewhere_is_heard_and_answered_as_from_there() {
    in_sidecar(|_| {
        let plane = apply(&plan());
        let app = ping();
        app.connect(&socket(BEYOND, 0).into()).unwrap();
        app.send(&[&[8, 0, 0, 0, 0, 0, 0, 7], &b"hello"[..]].concat()).unwrap();
        let calls = plane.calls().unwrap();
        assert!(wait(calls));
        let Heard::Echo(echo) = calls.next().unwrap() else { panic!("no echo") };
        assert_eq!((echo.to.to_string().as_str(), echo.sequence), (BEYOND, 7));
        assert_eq!(echo.payload, b"hello");
        let sender = PacketSender::open(MARK_TO_APP).unwrap();
        sender.echo(&echo, 7, b"hello").unwrap();
        app.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        let mut answer = [0; 64];
        let len = std::io::Read::read(&mut &app, &mut answer).unwrap();
        assert_eq!((answer[0], &answer[6..len]), (0, &b"\0\x07hello"[..]));
    });
}

#[test]
fn an_echo_request_to_ourselves_is_the_kernels() {
    in_sidecar(|_| {
        let plane = apply(&plan());
        let app = ping();
        app.connect(&socket("127.0.0.1", 0).into()).unwrap();
        app.send(&[8, 0, 0, 0, 0, 0, 0, 1]).unwrap();
        app.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        assert_eq!(std::io::Read::read(&mut &app, &mut [0; 64]).unwrap(), 8);
        assert!(plane.calls().unwrap().next().is_err());
    });
}

#[test]
fn other_protocols_are_refused() {
    in_sidecar(|_| {
        let _plane = apply(&plan());
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(99))).unwrap();
        let refused = raw.send_to(b"x", &socket(BEYOND, 0).into()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENETUNREACH));
        raw.send_to(b"x", &socket("127.0.0.1", 0).into()).unwrap();
    });
}
