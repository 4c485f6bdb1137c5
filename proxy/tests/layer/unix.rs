//! connect(2) to a unix socket of the target.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use mirrord_protocol::layer::{Request, Status, page, unix_stand_in};
use mirrord_protocol::unix::{UnixKind, UnixName};
use nix::libc;

use crate::client::App;
use crate::{app, on_one_thread, ready_with};

fn request(name: &[u8]) -> Request {
    Request::Unix { kind: UnixKind::Stream, name: UnixName::new(name).unwrap() }
}

/// What the library connects to.
fn stand_in(app: &App, number: u32) -> SocketAddr {
    let suffix = String::from_utf8(unix_stand_in(number).to_vec()).unwrap();
    SocketAddr::from_abstract_name(app.socket.clone() + &suffix).unwrap()
}

#[test]
fn a_unix_socket_of_the_target_answers_before_the_app_is_connected() {
    on_one_thread(async {
        let patterns = vec!["^/run/".into(), "^@named$".into()];
        let (session, _agent) = ready_with(|_, layer| layer.unix_streams = patterns).await;
        let client = session.app.clone();
        app(move || {
            let ask = |name: &[u8]| client.ask(&request(name)).reply;
            for name in [&b"/tmp/echo"[..], b"\0other", b"\0namedx", b"relative"] {
                assert_eq!(ask(name).status, Status::Direct, "{}", name.escape_ascii());
            }
            for (name, errno) in
                [(&b"/run/absent"[..], libc::ENOENT), (b"/run/deaf", libc::ECONNREFUSED)]
            {
                let reply = ask(name);
                assert_eq!(reply.status, Status::Refused);
                assert_eq!(reply.value, errno.unsigned_abs());
            }
            for name in [&b"/run/echo"[..], b"\0named", b"/run/echo"] {
                let reply = ask(name);
                assert_eq!(reply.status, Status::Done);
                let number = reply.value % page::UNIX_NAMES;
                assert_eq!(client.map().unix_name(number), name);
                let mut socket = UnixStream::connect_addr(&stand_in(&client, reply.value)).unwrap();
                let sent = vec![7; 3 << 20];
                let (mut writer, copy) = (socket.try_clone().unwrap(), sent.clone());
                let writing = std::thread::spawn(move || {
                    writer.write_all(&copy).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut back = Vec::new();
                socket.read_to_end(&mut back).unwrap();
                writing.join().unwrap();
                assert!(back == sent, "{} bytes", back.len());
            }
        })
        .await;
    });
}

#[test]
fn only_the_process_that_has_asked_gets_through() {
    on_one_thread(async {
        let (session, _agent) =
            ready_with(|_, layer| layer.unix_streams = vec!["/run".into()]).await;
        let client = session.app.clone();
        app(move || {
            let reply = client.ask(&request(b"/run/echo")).reply;
            let address = stand_in(&client, reply.value);
            let name = String::from_utf8(address.as_abstract_name().unwrap().to_vec()).unwrap();
            let code = "import socket,sys; s = socket.socket(socket.AF_UNIX); s.settimeout(9); \
                        s.connect('\\0' + sys.argv[1]); print(s.recv(1))";
            let stranger = std::process::Command::new("python3").args(["-c", code, &name]).output();
            let stranger = stranger.unwrap();
            assert_eq!(String::from_utf8_lossy(&stranger.stdout), "b''\n", "{stranger:?}");
            let mut socket = UnixStream::connect_addr(&address).unwrap();
            socket.write_all(b"hello").unwrap();
            let mut heard = [0; 5];
            socket.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"hello");
            UnixStream::connect_addr(&address).unwrap_err();
            let listed = fs::read_to_string("/proc/net/unix").unwrap();
            let left =
                listed.lines().filter(|line| line.contains(&name) && line.contains(" 00010000 "));
            assert_eq!(left.count(), 0, "a listener is left");
        })
        .await;
    });
}
