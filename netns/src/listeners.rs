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

/// All states of a connection but for LISTEN and `1 << TCP_TIME_WAIT`, with `TCPF_BOUND_INACTIVE`
/// (Linux 6.8): a socket that is bound and not connected, or not any more.
const IN_USE: u32 = 0x3fff & !LISTEN & !(1 << 6) & !1;

/// `1 << TCP_ESTABLISHED`: a UDP socket that is connected.
const CONNECTED: u32 = 1 << 1;

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

/// The two ends of a socket that has a connection, or had one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Its own address.
    pub local: SocketAddr,
    /// The other one's; unspecified if there is none.
    pub remote: SocketAddr,
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
        self.dump([LISTEN, CLOSE], |proto, message| found.extend(listening(proto, message)))?;
        Ok(found)
    }

    /// Lists the sockets that have a connection now, or had one and are still open.
    pub fn connected(&mut self) -> io::Result<Vec<Ends>> {
        let mut found = Vec::new();
        self.dump([IN_USE, CONNECTED], |_, message| found.extend(ends(message)))?;
        Ok(found)
    }

    /// Passes on what is in one of the states: of TCP, and of UDP.
    fn dump(&mut self, states: [u32; 2], mut each: impl FnMut(Proto, &[u8])) -> io::Result<()> {
        for (proto, states) in [Proto::Tcp, Proto::Udp].into_iter().zip(states) {
            for family in [libc::AF_INET, libc::AF_INET6] {
                self.socket.send(&request(proto, family as u8, states))?;
                loop {
                    let length = (&self.socket).read(&mut self.buffer)?;
                    if parse(&self.buffer[..length], |message| each(proto, message))? {
                        break;
                    }
                }
            }
        }
        Ok(())
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

fn request(proto: Proto, family: u8, states: u32) -> [u8; REQUEST] {
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
fn parse(mut batch: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<bool> {
    while let Some(length) = u32_at(batch, 0) {
        let (Some(kind), Some(message)) = (u16_at(batch, 4), batch.get(HEADER..length as usize))
        else {
            return Err(malformed());
        };
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => return Err(error(message)),
            _ => each(message),
        }
        batch = batch.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// One `inet_diag_msg`; nothing for a socket that has no port yet.
fn listening(proto: Proto, message: &[u8]) -> Option<Listening> {
    let message: &[u8; MESSAGE] = message.get(..MESSAGE)?.try_into().ok()?;
    let Ends { local: address, .. } = ends(message)?;
    let cookie = u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32;
    (address.port() != 0).then_some(Listening {
        proto,
        address,
        inode: u32_at(message, 68)?,
        cookie,
        uid: u32_at(message, 64)?,
    })
}

/// The two ends in an `inet_diag_msg`.
fn ends(message: &[u8]) -> Option<Ends> {
    let v4 = i32::from(*message.first()?) == libc::AF_INET;
    let end = |port: usize, ip: usize| {
        let port = u16::from_be_bytes(message.get(port..port + 2)?.try_into().ok()?);
        let ip: IpAddr = match v4 {
            true => <[u8; 4]>::try_from(message.get(ip..ip + 4)?).ok()?.into(),
            false => <[u8; 16]>::try_from(message.get(ip..ip + 16)?).ok()?.into(),
        };
        Some(SocketAddr::new(ip, port))
    };
    Some(Ends { local: end(4, 8)?, remote: end(6, 24)? })
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
    use std::net::{TcpListener, TcpStream, UdpSocket};

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
    fn connections_appear_with_both_ends_and_vanish() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let server = listener.local_addr().expect("its address");
        let client = TcpStream::connect(server).expect("a connection");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        udp.connect(server).expect("a remote address");
        let local = |address: io::Result<SocketAddr>| address.expect("its address");
        let expected = [local(client.local_addr()), local(udp.local_addr())]
            .map(|local| Ends { local, remote: server });
        let mut scanner = Scanner::open().expect("sock_diag");
        let mut present = || {
            let found = scanner.connected().expect("a scan");
            expected.map(|ends| found.contains(&ends))
        };
        assert_eq!(present(), [true, true]);
        drop((client, udp, listener));
        assert_eq!(present(), [false, false]);
    }

    #[test]
    fn a_cut_answer_is_an_error_and_no_panic() {
        let mut batch = [0_u8; 40];
        batch[0] = 200;
        assert!(parse(&batch, |_| {}).is_err());
    }

    #[test]
    fn the_ephemeral_ports_are_a_range() {
        assert!(!ephemeral_ports().expect("the range").is_empty());
    }
}
