//! Requests to the kernel's routing tables (rtnetlink), in the calling thread's namespace.
//!
//! The kernel answers before `send` returns, so that there is nothing to wait for: no task, no
//! reactor.

use std::io::{self, Read};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use socket2::{Domain, Protocol, Socket, Type};

/// The kernel's dumps come in pieces of at most 32 KiB when there is room for as much.
const BUFFER: usize = 32 * 1024;

/// A conversation with rtnetlink.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Opens a netlink socket of a family, such as `libc::NETLINK_ROUTE`.
pub(crate) fn open(family: i32) -> io::Result<Socket> {
    let kind = Type::RAW.cloexec();
    Socket::new(Domain::from(libc::AF_NETLINK), kind, Some(Protocol::from(family)))
}

impl Netlink {
    /// Opens the conversation.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: open(libc::NETLINK_ROUTE)?, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Adds what is not there yet; `AlreadyExists` when it is.
    pub(crate) fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.acknowledged(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Puts something in the place of what is there, or adds it.
    pub(crate) fn replace(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.acknowledged(message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Sends a request that is answered by an acknowledgement.
    pub(crate) fn execute(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.acknowledged(message, 0)
    }

    /// Lists objects.
    pub(crate) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut found = Vec::new();
        while !self.receive(&mut found)? {}
        Ok(found)
    }

    fn acknowledged(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        while !self.receive(&mut Vec::new())? {}
        Ok(())
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes).map(drop)
    }

    /// Reads one batch of answers; true after the last.
    fn receive(&mut self, found: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let length = (&self.socket).read(&mut self.buffer)?;
        let mut rest = &self.buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let size = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(size..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) => return Ok(true),
                NetlinkPayload::InnerMessage(inner) => found.push(inner),
                _ => {}
            }
        }
        Ok(false)
    }
}
