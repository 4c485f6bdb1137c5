//! Which sockets of the namespace wait for traffic, by sock_diag.

use std::{
    fs::{self, File},
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    os::unix::fs::FileExt,
};

use socket2::Socket;

use crate::{Proto, netlink};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;

/// Bytes of the request: netlink header and `inet_diag_req_v2`.
const REQUEST: usize = 16 + 56;

/// Bytes of an answer's `inet_diag_msg`.
const MESSAGE: usize = 72;

/// Bytes of a netlink header.
const HEADER: usize = 16;

/// The kernel fills batches of at most this size.
const BUFFER: usize = 32 * 1024;

/// State bits, `1 << TCP_LISTEN` and `1 << TCP_CLOSE` (a UDP socket that is not connected).
const LISTEN: u32 = 1 << 10;
const CLOSE: u32 = 1 << 7;

/// Where the kernel says which ports it gives to sockets that do not ask for one.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A TCP socket that listens, or a UDP socket that is bound and not connected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listening {
    /// Its protocol.
    pub proto: Proto,
    /// What it is bound to.
    pub address: SocketAddr,
    /// Its inode, as in `/proc/PID/fd`.
    pub inode: u32,
    /// Its kernel-wide unique number.
    pub cookie: u64,
    /// The user who made it.
    pub uid: u32,
}

/// Lists the listening sockets of the namespace it was opened in, again and again.
#[derive(Debug)]
pub struct Scanner {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Scanner {
    /// Opens the netlink socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: netlink::open(libc::NETLINK_SOCK_DIAG)?, buffer: vec![0; BUFFER] })
    }

    /// Lists what listens now.
    pub fn scan(&mut self) -> io::Result<Vec<Listening>> {
        let mut found = Vec::new();
        for proto in [Proto::Tcp, Proto::Udp] {
            for family in [libc::AF_INET, libc::AF_INET6] {
                self.dump(proto, family as u8, &mut found)?;
            }
        }
        Ok(found)
    }

    fn dump(&mut self, proto: Proto, family: u8, found: &mut Vec<Listening>) -> io::Result<()> {
        self.socket.send(&request(proto, family))?;
        loop {
            let length = (&self.socket).read(&mut self.buffer)?;
            if parse(proto, &self.buffer[..length], found)? {
                return Ok(());
            }
        }
    }
}

/// How many sockets are in use in the namespace, as the kernel counts them: a look costs a tenth
/// of a scan.
#[derive(Debug)]
pub struct SocketCounts {
    files: [File; 2],
    last: Option<u64>,
}

impl SocketCounts {
    /// Opens the counts of the calling thread's namespace; proc_pid_net(5).
    pub fn open() -> io::Result<Self> {
        let open = |name| File::open(format!("/proc/thread-self/net/{name}"));
        Ok(Self { files: [open("sockstat")?, open("sockstat6")?], last: None })
    }

    /// Whether any count differs from the last look's. A socket that comes as another goes is
    /// missed: whoever must not miss it scans now and then all the same.
    pub fn changed(&mut self) -> io::Result<bool> {
        let mut text = [0; 512];
        let mut now = 0u64;
        for file in &self.files {
            let len = file.read_at(&mut text, 0)?;
            now = in_use(&text[..len])
                .fold(now, |sum, count| sum.wrapping_mul(31).wrapping_add(count));
        }
        Ok(self.last.replace(now) != Some(now))
    }
}

/// The numbers behind `inuse`; the others are of the whole machine.
fn in_use(text: &[u8]) -> impl Iterator<Item = u64> {
    let mut words = text.split(u8::is_ascii_whitespace);
    std::iter::from_fn(move || {
        words.find(|word| *word == b"inuse")?;
        std::str::from_utf8(words.next()?).ok()?.parse().ok()
    })
}

/// The ports that the kernel gives to sockets which do not ask for one.
pub fn ephemeral_ports() -> io::Result<RangeInclusive<u16>> {
    let text = fs::read_to_string(PORT_RANGE)?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected ip_local_port_range")),
    }
}

fn request(proto: Proto, family: u8) -> [u8; REQUEST] {
    let states = match proto {
        Proto::Tcp => LISTEN,
        Proto::Udp => CLOSE,
    };
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = proto.number();
    bytes[20..24].copy_from_slice(&states.to_ne_bytes());
    bytes
}

/// Reads one batch of answers; true after the last.
fn parse(proto: Proto, mut batch: &[u8], found: &mut Vec<Listening>) -> io::Result<bool> {
    while let Some(length) = u32_at(batch, 0) {
        let (Some(kind), Some(message)) = (u16_at(batch, 4), batch.get(HEADER..length as usize))
        else {
            return Err(malformed());
        };
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => return Err(error(message)),
            _ => found.extend(listening(proto, message)),
        }
        batch = batch.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// One `inet_diag_msg`; nothing for a socket that has no port yet.
fn listening(proto: Proto, message: &[u8]) -> Option<Listening> {
    let message: &[u8; MESSAGE] = message.get(..MESSAGE)?.try_into().ok()?;
    let ip: IpAddr = if i32::from(message[0]) == libc::AF_INET {
        <[u8; 4]>::try_from(&message[8..12]).ok()?.into()
    } else {
        <[u8; 16]>::try_from(&message[8..24]).ok()?.into()
    };
    let port = u16::from_be_bytes([message[4], message[5]]);
    let cookie = u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32;
    (port != 0).then_some(Listening {
        proto,
        address: SocketAddr::new(ip, port),
        inode: u32_at(message, 68)?,
        cookie,
        uid: u32_at(message, 64)?,
    })
}

fn error(message: &[u8]) -> io::Error {
    match u32_at(message, 0) {
        Some(code) => io::Error::from_raw_os_error((code as i32).wrapping_neg()),
        None => malformed(),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed sock_diag answer")
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let found = bytes.get(offset..offset + 2)?;
    found.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let found = bytes.get(offset..offset + 4)?;
    found.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn sockets_appear_and_vanish() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let expected = [
            (Proto::Tcp, tcp.local_addr().expect("its address")),
            (Proto::Udp, udp.local_addr().expect("its address")),
        ];
        let mut scanner = Scanner::open().expect("sock_diag");
        let mut present = || {
            let found = scanner.scan().expect("a scan");
            expected.map(|(proto, address)| {
                found.iter().any(|l| l.proto == proto && l.address == address)
            })
        };
        assert_eq!(present(), [true, true]);
        drop((tcp, udp));
        assert_eq!(present(), [false, false]);
    }

    #[test]
    fn a_cut_answer_is_an_error_and_no_panic() {
        let mut batch = [0_u8; 40];
        batch[0] = 200;
        assert!(parse(Proto::Tcp, &batch, &mut Vec::new()).is_err());
    }

    #[test]
    fn the_ephemeral_ports_are_a_range() {
        assert!(!ephemeral_ports().expect("the range").is_empty());
    }
}
