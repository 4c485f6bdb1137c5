//! A socket of loopback that sends from the address of any slot, and knows which of them it was
//! sent to: IP_PKTINFO of ip(7).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use mirrord_protocol::layer::Slot;
use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::sockopt::Ipv4PacketInfo;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
};
use socket2::{Domain, Socket, Type};

use crate::layer::sink::on_loopback;

/// So much may wait for us while we are busy, and for the app.
const BUFFER: usize = 4 << 20;

/// One port at every slot's remote end.
#[derive(Debug)]
pub(super) struct SlotSocket {
    socket: Socket,
    port: u16,
}

impl SlotSocket {
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), None)?;
        on_loopback(&socket)?;
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
        // As much as the system allows.
        let _ = socket.set_recv_buffer_size(BUFFER);
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(Self { socket, port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The next datagram: who sent it, where to, and how many bytes.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(SocketAddrV4, Ipv4Addr, usize)> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = cmsg_space!(in_pktinfo);
        let message = recvmsg::<SockaddrIn>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let to = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info.ipi_addr),
            _ => None,
        });
        match (message.address, to) {
            (Some(from), Some(to)) => {
                let to = Ipv4Addr::from(to.s_addr.to_ne_bytes());
                Ok((from.into(), to, message.bytes))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends a datagram to the app, as who is behind a slot.
    pub(super) fn send(&self, slot: Slot, app: SocketAddrV4, payload: &[u8]) -> io::Result<()> {
        let from = in_addr { s_addr: u32::from_ne_bytes(slot.remote().octets()) };
        let nowhere = in_addr { s_addr: 0 };
        let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: nowhere };
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(payload)],
            &[ControlMessage::Ipv4PacketInfo(&info)],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            Some(&SockaddrIn::from(app)),
        )?;
        Ok(())
    }
}

impl AsFd for SlotSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_app_is_spoken_to_and_heard_as_a_slot() {
        let ours = SlotSocket::open(0).unwrap();
        let app = UdpSocket::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = app.local_addr().unwrap() else { panic!("IPv4") };
        let slot = Slot(70_000);
        ours.send(slot, address, b"hello").unwrap();
        let mut buffer = [0; 64];
        let (len, from) = app.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"hello");
        assert_eq!(from, SocketAddr::from((slot.remote(), ours.port())));
        app.send_to(b"answer", from).unwrap();
        let (from, to, len) = ours.receive(&mut buffer).unwrap();
        assert_eq!((from, to), (address, slot.remote()));
        assert_eq!(&buffer[..len], b"answer");
        let error = ours.receive(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
