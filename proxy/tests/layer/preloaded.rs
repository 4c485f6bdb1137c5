//! Programs with the preload library in them. Its file is named by MIRRORD_LAYER_LIBRARY; without
//! it these tests are skipped loudly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;

use bytes::Bytes;
use mirrord_protocol::control::Protocol;
use mirrord_protocol::layer::LAYER_VARIABLE;
use nix::libc;
use tokio::process::{Child, Command};

use crate::agent::{Agent, BLACK_HOLE, REACHABLE, REFUSING, TARGET};
use crate::session::Session;
use crate::{on_one_thread, ready};

const LIBRARY: &str = "MIRRORD_LAYER_LIBRARY";

fn library() -> Option<PathBuf> {
    let library = std::env::var_os(LIBRARY).map(PathBuf::from);
    if library.is_none() {
        eprintln!("SKIPPED: {LIBRARY} names no preload library");
    }
    library
}

/// A Python program with the library in it.
fn start(session: &Session, library: &PathBuf, program: &str) -> Child {
    let key: String = session.app.key.iter().map(|byte| format!("{byte:02x}")).collect();
    Command::new("python3")
        .args(["-u", "-c", program])
        .env("LD_PRELOAD", library)
        .env(LAYER_VARIABLE, format!("{}:{key}", session.app.socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// What it says, in lines; it must succeed.
async fn said(child: Child) -> Vec<String> {
    let output = child.wait_with_output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn with_session(test: impl AsyncFnOnce(Session, Agent, PathBuf)) {
    if let Some(library) = library() {
        let (session, agent) = ready().await;
        test(session, agent, library).await;
    }
}

#[test]
fn a_server_sees_the_targets_clients() {
    on_one_thread(with_session(async |session, agent, library| {
        let program = "
import socket
s = socket.create_server(('', 80))
print(s.getsockname())
for _ in range(2):
    c, a = s.accept()
    print(a, c.getpeername(), c.getsockname(), c.recv(100))
    c.sendall(b'answer')
    c.close()
";
        let server = start(&session, &library, program);
        agent.wants(&[80]).await;
        for port in [40_000, 40_001] {
            let stream = agent.client(Protocol::Tcp, &format!("203.0.113.9:{port}"), 80);
            stream.send(Bytes::from("hello")).await.unwrap();
            stream.finish();
            stream.ended().await;
        }
        let expected = |port| {
            format!("('203.0.113.9', {port}) ('203.0.113.9', {port}) ('{TARGET}', 80) b'hello'")
        };
        let said = said(server).await;
        assert_eq!(said, ["('0.0.0.0', 80)", &expected(40_000), &expected(40_001)]);
    }));
}

#[test]
fn connecting_tells_the_truth_whether_it_blocks_or_not() {
    on_one_thread(with_session(async |session, _agent, library| {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = echo.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for socket in echo.incoming() {
                let mut socket: TcpStream = socket.unwrap();
                let mut buffer = [0; 64];
                let len = socket.read(&mut buffer).unwrap();
                socket.write_all(&buffer[..len]).unwrap();
            }
        });
        let program = format!(
            "
import asyncio, errno, socket
def blocking(ip, port):
    try:
        c = socket.create_connection((ip, port))
        c.sendall(b'hello')
        return c.recv(100), c.getpeername(), c.getsockname()[0]
    except OSError as e:
        return errno.errorcode[e.errno]
async def other(ip, port):
    try:
        r, w = await asyncio.wait_for(asyncio.open_connection(ip, port), 0.5)
        w.write(b'hello')
        return await r.read(100), w.get_extra_info('peername')
    except (OSError, asyncio.TimeoutError) as e:
        return errno.errorcode.get(getattr(e, 'errno', None), 'nothing')
print(blocking('{REACHABLE}', {port}))
print(asyncio.run(other('{REACHABLE}', {port})))
for number in ({}, {}, {}):
    print(blocking('{REFUSING}', number), asyncio.run(other('{REFUSING}', number)))
print(asyncio.run(other('{BLACK_HOLE}', 80)))
",
            libc::ECONNREFUSED,
            libc::EHOSTUNREACH,
            libc::ETIMEDOUT
        );
        let said = said(start(&session, &library, &program)).await;
        let peer = SocketAddr::from((REACHABLE, port));
        let peer = format!("('{}', {})", peer.ip(), peer.port());
        assert_eq!(
            said,
            [
                &format!("(b'hello', {peer}, '{TARGET}')"),
                &format!("(b'hello', {peer})"),
                "ECONNREFUSED ECONNREFUSED",
                "EHOSTUNREACH EHOSTUNREACH",
                "ETIMEDOUT ETIMEDOUT",
                "nothing"
            ]
        );
    }));
}

#[test]
fn datagrams_and_names_are_the_targets() {
    on_one_thread(with_session(async |session, _agent, library| {
        let program = format!(
            "
import socket
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(5)
for word in (b'one', b'two'):
    u.sendto(word, ('{REACHABLE}', 5000))
    print(u.recvfrom(100))
u.connect(('{REACHABLE}', 5001))
u.send(b'three')
print(u.recv(100), u.getpeername(), u.getsockname()[0])
print(socket.gethostbyname('db'), socket.gethostbyname('in-hosts'), socket.gethostname())
print(sorted({{i[4][0] for i in socket.getaddrinfo('only', 80)}}))
try:
    socket.getaddrinfo('nobody', 80)
except socket.gaierror as e:
    print(e.errno == socket.EAI_NONAME)
"
        );
        let said = said(start(&session, &library, &program)).await;
        assert_eq!(
            said,
            [
                &format!("(b'one', ('{REACHABLE}', 5000))"),
                &format!("(b'two', ('{REACHABLE}', 5000))"),
                &format!("b'three' ('{REACHABLE}', 5001) {TARGET}"),
                "10.1.2.3 10.9.9.9 web-0",
                "['2001:db8::7']",
                "True"
            ]
        );
    }));
}
