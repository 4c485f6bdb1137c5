//! A proxy that knows three names and exchanges programs.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use mirrord_layer::sys::{self, Fd};
use mirrord_protocol::layer::{Cause, REQUEST_LEN, Reply, Request, Status, encode_address, page};

/// What becomes of programs that no library can be loaded into.
#[derive(Clone, Copy)]
pub enum Programs {
    /// They are refused.
    Refused,
    /// A copy is executed.
    Copied,
    /// They are executed.
    Direct,
}

/// Starts one that serves until the test ends; what it returns is the layer's variable.
pub fn start(hostname: &str, programs: Programs) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("mirrord-layer-children-{}-{count}", std::process::id());
    let address = UnixAddr::from_abstract_name(&name).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("a listener");
    let memory = tempfile::tempfile().expect("a file");
    memory.set_len(page::LEN as u64).expect("room");
    memory.write_all_at(&page::MAGIC.to_le_bytes(), 0).expect("written");
    memory.write_all_at(hostname.as_bytes(), page::HOSTNAME as u64).expect("written");
    memory.write_all_at(b"left-alone\0\0", page::SKIPPED as u64).expect("written");
    thread::spawn(move || {
        while let Ok((peer, _)) = listener.accept() {
            let memory = memory.try_clone().expect("a file");
            thread::spawn(move || serve(peer, &memory, programs));
        }
    });
    name
}

fn serve(peer: UnixStream, memory: &File, programs: Programs) {
    let peer = Fd::adopt(peer.into_raw_fd() as usize).expect("a descriptor");
    let mut bytes = [0; REQUEST_LEN];
    let (mut len, mut passed) = (0, None);
    while len < bytes.len() {
        let (more, fd) = sys::receive(&peer, &mut bytes[len..]).expect("a request");
        assert!(more > 0, "it is cut short");
        len += more;
        passed = passed.or(fd);
    }
    let (_, request) = Request::decode(&bytes).expect("a request");
    let (reply, payload, fd) = answer(request, memory, passed, programs);
    let reply = Reply { payload: payload.len() as u32, ..reply };
    let number = fd.as_ref().map(AsRawFd::as_raw_fd);
    sys::send_with(&peer, &reply.encode(), number).expect("sent");
    let mut rest = &payload[..];
    while !rest.is_empty() {
        rest = &rest[sys::send_with(&peer, rest, None).expect("sent")..];
    }
}

type Answer = (Reply, Vec<u8>, Option<File>);

fn answer(request: Request, memory: &File, passed: Option<Fd>, programs: Programs) -> Answer {
    let plain = |status, value| (Reply::new(status, value), vec![], None);
    match request {
        Request::Map => {
            let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
            let file = File::open(path).expect("a file");
            (Reply::new(Status::Done, 0), vec![], Some(file))
        }
        Request::Resolve { name, v4, v6 } => resolve(name.as_bytes(), v4, v6),
        Request::Query { name, class, kind, .. } => query(name.as_bytes(), class, kind),
        Request::Exec => match programs {
            Programs::Refused => plain(Status::Refused, libc::ENOEXEC as u32),
            Programs::Direct => plain(Status::Direct, 0),
            Programs::Copied => {
                let copy = copy(&passed.expect("a program"));
                (Reply::new(Status::Done, 0), vec![], Some(copy))
            }
        },
        _ => plain(Status::Direct, 0),
    }
}

fn resolve(name: &[u8], v4: bool, v6: bool) -> Answer {
    let refused = |cause| (Reply::new(Status::Refused, cause as u32), vec![], None);
    let (addresses, canonical): (&[&str], &str) = match name {
        b"db" => (&["10.9.0.1", "2001:db8::1"], "db.shop"),
        b"four" => (&["10.9.0.4"], ""),
        b"again" => return refused(Cause::TryAgain),
        _ => return refused(Cause::NotFound),
    };
    let addresses = addresses.iter().map(|ip| ip.parse::<IpAddr>().expect("an address"));
    let wanted: Vec<_> = addresses.filter(|ip| if ip.is_ipv4() { v4 } else { v6 }).collect();
    if wanted.is_empty() {
        return refused(Cause::NoData);
    }
    let mut payload = (wanted.len() as u16).to_le_bytes().to_vec();
    for ip in wanted {
        payload.extend(encode_address(Some(SocketAddr::new(ip, 0))));
    }
    payload.extend(canonical.as_bytes());
    (Reply::new(Status::Done, 0), payload, None)
}

/// One record of four bytes, or a name if one is asked for.
fn query(name: &[u8], class: u16, kind: u16) -> Answer {
    let cause = match name {
        b"nobody" | b"2.0.9.10.in-addr.arpa" => Some(Cause::NotFound),
        b"3.0.9.10.in-addr.arpa" => Some(Cause::TryAgain),
        _ => None,
    };
    if let Some(cause) = cause {
        return (Reply::new(Status::Refused, cause as u32), vec![], None);
    }
    let mut payload = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    for label in name.split(|byte| *byte == b'.') {
        payload.push(label.len() as u8);
        payload.extend(label);
    }
    payload.push(0);
    let types = [kind.to_be_bytes(), class.to_be_bytes()].concat();
    payload.extend(&types);
    payload.extend([0xc0, 12]);
    payload.extend(&types);
    let data: &[u8] = if kind == 12 { b"\x02db\x04shop\0" } else { &[10, 9, 0, 1] };
    payload.extend([0, 0, 0, 60, 0, data.len() as u8]);
    payload.extend(data);
    (Reply::new(Status::Done, 0), payload, None)
}

fn copy(program: &Fd) -> File {
    let mut from = File::open(format!("/proc/self/fd/{}", program.number())).expect("a program");
    let mut bytes = vec![];
    from.read_to_end(&mut bytes).expect("read");
    // SAFETY: a name that ends, and a descriptor that nobody else has.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"copy".as_ptr(), 0)) };
    file.write_all(&bytes).expect("written");
    // It can't be executed as long as somebody may write to it.
    let copy = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("a program");
    drop(file);
    copy
}
