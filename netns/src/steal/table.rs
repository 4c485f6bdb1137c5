//! Stealing where no BPF program may be loaded, as in a user namespace: a table of netfilter's with
//! `tproxy` rules. Its owner is a socket of ours, and the kernel removes it when that is closed.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use socket2::Socket;

use crate::{Proto, netlink, sk_lookup::Sockets};

use super::words::{self, Attributes, Message};

/// Room for the kernel's answers to one batch.
const BUFFER: usize = 64 * 1024;
/// The device that is never stolen from.
const LOOPBACK: u32 = 1;
const CHAIN: &str = "steal";

/// The rules that take the ports.
#[derive(Debug)]
pub(super) struct Table {
    socket: Socket,
    name: String,
    sequence: u32,
    /// The target's addresses, each with the sockets that take what is sent there.
    places: Vec<(IpAddr, Proto, SocketAddr)>,
    ports: BTreeSet<(Proto, u16)>,
}

impl Table {
    /// Makes the table in the calling thread's network namespace; nothing is taken yet.
    pub(super) fn make(own: &[IpAddr], sockets: &Sockets) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mirrord-{}-{number}", std::process::id());
        let tcp = sockets.tcp.iter().map(|one| Ok((Proto::Tcp, one.local_addr()?)));
        let udp = sockets.udp.iter().map(|one| Ok((Proto::Udp, one.local_addr()?)));
        let takers = tcp.chain(udp).collect::<io::Result<Vec<_>>>()?;
        let of = |ip: IpAddr| {
            let fits = takers.iter().filter(move |(_, to)| to.is_ipv4() == ip.is_ipv4());
            fits.map(move |(proto, to)| (ip, *proto, *to))
        };
        let places = own.iter().flat_map(|ip| of(*ip)).collect();
        let socket = netlink::open(libc::NETLINK_NETFILTER)?;
        let mut table = Self { socket, name, sequence: 0, places, ports: BTreeSet::new() };
        table.send(vec![table.itself(), table.chain()])?;
        Ok(table)
    }

    /// Begins to take a port.
    pub(super) fn add(&mut self, proto: Proto, port: u16) -> io::Result<()> {
        self.ports.insert((proto, port));
        self.write().inspect_err(|_| {
            self.ports.remove(&(proto, port));
        })
    }

    /// Gives a port back.
    pub(super) fn remove(&mut self, proto: Proto, port: u16) -> io::Result<()> {
        match self.ports.remove(&(proto, port)) {
            true => self.write(),
            false => Ok(()),
        }
    }

    /// Puts other rules in the place of those that are there, at once.
    fn write(&mut self) -> io::Result<()> {
        let mut messages = vec![self.no_rules()];
        for (own, proto, to) in &self.places {
            let ports = self.ports.iter().filter(|(other, _)| other == proto);
            messages.extend(ports.map(|(_, port)| self.rule(*own, *proto, *port, *to)));
        }
        self.send(messages)
    }

    fn itself(&self) -> Message {
        let mut body = Attributes::new();
        body.text(words::TABLE_NAME, &self.name).number(words::TABLE_FLAGS, words::OWNED);
        Message { kind: words::NEW_TABLE, flags: NLM_F_CREATE, body }
    }

    fn chain(&self) -> Message {
        let mut body = Attributes::new();
        body.text(words::CHAIN_TABLE, &self.name)
            .text(words::CHAIN_NAME, CHAIN)
            .nested(words::CHAIN_HOOK, |hook| {
                hook.number(words::HOOK_NUMBER, words::PREROUTING)
                    .number(words::HOOK_PRIORITY, words::MANGLE);
            })
            .text(words::CHAIN_TYPE, "filter");
        Message { kind: words::NEW_CHAIN, flags: NLM_F_CREATE, body }
    }

    fn no_rules(&self) -> Message {
        let mut body = Attributes::new();
        body.text(words::RULE_TABLE, &self.name).text(words::RULE_CHAIN, CHAIN);
        Message { kind: words::DELETE_RULE, flags: 0, body }
    }

    /// What comes to that port from outside is for the socket at `to`.
    fn rule(&self, own: IpAddr, proto: Proto, port: u16, to: SocketAddr) -> Message {
        let mut body = Attributes::new();
        body.text(words::RULE_TABLE, &self.name).text(words::RULE_CHAIN, CHAIN).nested(
            words::RULE_EXPRESSIONS,
            |rule| {
                rule.not_from_device(LOOPBACK)
                    .of_family(own)
                    .of_protocol(proto.number())
                    .dst_address(own)
                    .dst_port(port)
                    .taken_by(to);
            },
        );
        Message { kind: words::NEW_RULE, flags: NLM_F_CREATE | NLM_F_APPEND, body }
    }

    /// All of it or nothing.
    fn send(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let mut batch = words::edge(true, self.sequence);
        for message in messages {
            self.sequence += 1;
            batch.extend(message.bytes(NLM_F_REQUEST | NLM_F_ACK, self.sequence));
        }
        batch.extend(words::edge(false, self.sequence));
        self.socket.send(&batch)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = (&self.socket).read(&mut buffer)?;
            for (sequence, error) in words::answers(&buffer[..length]) {
                if error != 0 {
                    return Err(io::Error::from_raw_os_error(-error));
                }
                if sequence == self.sequence {
                    return Ok(());
                }
            }
        }
    }
}
