//! A process of the app that does by hand what the preload library does.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use mirrord_protocol::layer::{
    ADDRESS_LEN, REPLY_LEN, Reply, Request, Slot, Status, Transport, decode_address, page,
};
use nix::libc;
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, Socket, Type};

/// Knows where the proxy is.
#[derive(Clone)]
pub struct App {
    pub socket: String,
    pub key: [u8; 16],
}

/// What the proxy said.
#[derive(Debug)]
pub struct Answer {
    pub reply: Reply,
    pub payload: Vec<u8>,
    pub fd: Option<OwnedFd>,
}

/// The shared memory.
pub struct Page(File);

impl App {
    pub fn reach(&self) -> UnixStream {
        let address = UnixAddr::from_abstract_name(&self.socket).unwrap();
        let socket = UnixStream::connect_addr(&address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    pub fn ask(&self, request: &Request) -> Answer {
        self.ask_with(request, None).unwrap()
    }

    pub fn ask_with(&self, request: &Request, fd: Option<BorrowedFd<'_>>) -> io::Result<Answer> {
        let mut socket = self.reach();
        send(&socket, &request.encode(&self.key), fd)?;
        receive(&mut socket)
    }

    pub fn map(&self) -> Page {
        Page(self.ask(&Request::Map).fd.expect("memory").into())
    }

    /// bind(2) as the library has it.
    pub fn bind(&self, socket: &Socket, address: &str) -> Reply {
        let transport = match socket.r#type().unwrap() {
            Type::STREAM => Transport::Tcp,
            _ => Transport::Udp,
        };
        let address = address.parse().unwrap();
        let shared = socket.reuse_port().unwrap();
        let request = Request::Bind { transport, address, shared };
        self.ask_with(&request, Some(socket.as_fd())).unwrap().reply
    }

    /// A socket that the app binds and listens on, and its fake port.
    pub fn listen(&self, address: &str) -> (TcpListener, u16) {
        let domain = Domain::for_address(address.parse().unwrap());
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let reply = self.bind(&socket, address);
        assert_eq!(reply.status, Status::Done, "{reply:?}");
        let fake = u16::try_from(reply.value).unwrap();
        socket.listen(128).unwrap();
        assert_eq!(self.ask(&Request::Listen { fake }).reply.status, Status::Done);
        (socket.into(), fake)
    }

    /// connect(2), blocking.
    pub fn connect(&self, remote: SocketAddr) -> Result<TcpStream, i32> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let (slot, port) = self.dial(&socket, remote)?;
        let result = socket.connect(&SocketAddr::from((slot.remote(), port)).into());
        match self.map().failure(slot) {
            Some(errno) => Err(errno),
            None => result.map(|()| socket.into()).map_err(|error| error.raw_os_error().unwrap()),
        }
    }

    /// What comes before the real connect(2): where to.
    pub fn dial(&self, socket: &Socket, remote: SocketAddr) -> Result<(Slot, u16), i32> {
        let reply = self.ask_with(&Request::Dial { remote }, Some(socket.as_fd())).unwrap().reply;
        match reply.status {
            Status::Done => Ok((reply.slot(), reply.port)),
            Status::Direct => Err(0),
            Status::Refused => Err(i32::try_from(reply.value).unwrap()),
        }
    }

    /// Where datagrams to a remote address go.
    pub fn peer(&self, remote: SocketAddr) -> Result<SocketAddr, i32> {
        let reply = self.ask(&Request::Peer { remote }).reply;
        match reply.status {
            Status::Done => Ok(SocketAddr::from((reply.slot().remote(), reply.port))),
            Status::Direct => Err(0),
            Status::Refused => Err(i32::try_from(reply.value).unwrap()),
        }
    }
}

impl Page {
    fn bytes<const LEN: usize>(&self, at: usize) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        self.0.read_exact_at(&mut bytes, at as u64).unwrap();
        bytes
    }

    pub fn remote(&self, slot: Slot) -> Option<SocketAddr> {
        decode_address(&self.bytes(page::remote(slot)))
    }

    pub fn local(&self, slot: Slot) -> Option<SocketAddr> {
        decode_address(&self.bytes(page::local(slot)))
    }

    pub fn asked(&self, transport: Transport, fake: u16) -> Option<SocketAddr> {
        decode_address(&self.bytes::<ADDRESS_LEN>(page::asked(transport, fake)))
    }

    pub fn fake(&self, transport: Transport, port: u16) -> u16 {
        u16::from_le_bytes(self.bytes(page::fake(transport, port)))
    }

    pub fn datagrams(&self) -> u16 {
        u16::from_le_bytes(self.bytes(page::DATAGRAMS))
    }

    pub fn hostname(&self) -> Vec<u8> {
        let bytes: [u8; page::HOSTNAME_LEN] = self.bytes(page::HOSTNAME);
        bytes.split(|byte| *byte == 0).next().unwrap().to_vec()
    }

    pub fn unix_name(&self, number: u32) -> Vec<u8> {
        let entry: [u8; page::UNIX_LEN] = self.bytes(page::unix(number));
        entry[1..=usize::from(entry[0])].to_vec()
    }

    pub fn failure(&self, slot: Slot) -> Option<i32> {
        let outcome = u32::from_le_bytes(self.bytes(page::outcome(slot)));
        outcome.checked_sub(page::FAILED).map(|errno| i32::try_from(errno).unwrap())
    }

    pub fn is_pending(&self, slot: Slot) -> bool {
        u32::from_le_bytes(self.bytes(page::outcome(slot))) == page::PENDING
    }

    /// Who is behind an address that the kernel shows.
    pub fn behind(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.remote(Slot::of_remote(address.ip())?)
    }
}

pub fn send(to: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if let Some(fd) = &fd {
        rights.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
    }
    let sent = sendmsg(to, &[IoSlice::new(bytes)], &mut rights, SendFlags::NOSIGNAL)?;
    assert_eq!(sent, bytes.len());
    Ok(())
}

pub fn receive(from: &mut UnixStream) -> io::Result<Answer> {
    let mut head = [0; REPLY_LEN];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut room = [IoSliceMut::new(&mut head)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let len = recvmsg(&*from, &mut room, &mut control, flags)?.bytes;
    if len != REPLY_LEN {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let reply = Reply::decode(&head).unwrap();
    let mut payload = vec![0; reply.payload as usize];
    from.read_exact(&mut payload)?;
    Ok(Answer { reply, payload, fd })
}

/// A UDP socket that waits no more than a while.
pub fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// The kernel's name of an error.
pub fn named(errno: i32) -> &'static str {
    match errno {
        0 => "direct",
        libc::ECONNREFUSED => "refused",
        libc::EHOSTUNREACH => "unreachable",
        libc::ETIMEDOUT => "timed out",
        libc::EADDRINUSE => "in use",
        libc::EADDRNOTAVAIL => "not available",
        libc::EINVAL => "invalid",
        libc::EBADF => "no descriptor",
        libc::ENOTSOCK => "no socket",
        _ => "another error",
    }
}
