//! The filter where no BPF program may be loaded, as in a user namespace: the older kind, which
//! any socket may have. It has no memory: what says nothing new is left out later.

use std::{collections::BTreeSet, io, net::IpAddr};

use socket2::SockFilter;

use crate::{Proto, TargetNet};

use super::socket::{PacketSocket, Version};

/// `SKF_AD_OFF` and `SKF_NET_OFF` (linux/filter.h): what the kernel knows, and where IP begins.
const KNOWN: u32 = 0x1000_u32.wrapping_neg();
const IP: u32 = 0x10_0000_u32.wrapping_neg();
const PACKET_TYPE: u32 = KNOWN + 4;
const DEVICE: u32 = KNOWN + 8;
const TO_THIS_HOST: u32 = 0;
const LOOPBACK: u32 = 1;
const ALL: u32 = u32::MAX;

/// Instructions (linux/bpf_common.h).
const LOAD_WORD: u32 = 0x20;
const LOAD_HALF: u32 = 0x28;
const LOAD_BYTE: u32 = 0x30;
const LOAD_HALF_BEHIND: u32 = 0x48;
const SET_INDEX: u32 = 0x01;
const INDEX_OF: u32 = 0x07;
const AND: u32 = 0x54;
const SHIFT_LEFT: u32 = 0x64;
const IF_EQUAL: u32 = 0x15;
const IF_ANY_BIT: u32 = 0x45;
const RETURN: u32 = 0x06;

/// Fields of the IP headers.
const V4_PROTOCOL: u32 = IP + 9;
const V4_FRAGMENT: u32 = IP + 6;
const V4_DESTINATION: u32 = IP + 16;
const V6_NEXT: u32 = IP + 6;
const V6_LENGTH: u32 = 40;
const DESTINATION_PORT: u32 = 2;
/// Headers of IPv6 behind which TCP and UDP may still come.
const V6_MORE: [u32; 4] = [0, 43, 44, 60];

/// The ports whose packets come through.
#[derive(Debug)]
pub(super) struct PlainFilter {
    own: Vec<IpAddr>,
    ports: BTreeSet<(Proto, u16)>,
}

impl PlainFilter {
    pub(super) fn new(target: &TargetNet) -> Self {
        Self { own: target.own.clone(), ports: BTreeSet::new() }
    }

    /// Lets a port's packets through, or no longer.
    pub(super) fn set(
        &mut self,
        proto: Proto,
        port: u16,
        on: bool,
        sockets: &[PacketSocket],
    ) -> io::Result<()> {
        match on {
            true => self.ports.insert((proto, port)),
            false => self.ports.remove(&(proto, port)),
        };
        sockets.iter().try_for_each(|socket| self.attach(socket))
    }

    /// Has the filter decide what a socket receives.
    pub(super) fn attach(&self, socket: &PacketSocket) -> io::Result<()> {
        socket.filter(&self.program(socket.version()))
    }

    fn program(&self, version: Version) -> Vec<SockFilter> {
        let mut program = Program::default();
        program.load(LOAD_BYTE, PACKET_TYPE).unless(&[TO_THIS_HOST]);
        program.load(LOAD_WORD, DEVICE).when(LOOPBACK, 0);
        match version {
            Version::V4 => {
                let own = self.own.iter().filter_map(|ip| match ip {
                    IpAddr::V4(ip) => Some(u32::from(*ip)),
                    IpAddr::V6(_) => None,
                });
                program.load(LOAD_WORD, V4_DESTINATION).unless(&own.collect::<Vec<_>>());
                program.load(LOAD_HALF, V4_FRAGMENT).bits(0x1fff);
                // The header's length, in words.
                program.load(LOAD_BYTE, IP).push(AND, 15).push(SHIFT_LEFT, 2).push(INDEX_OF, 0);
                program.load(LOAD_BYTE, V4_PROTOCOL);
            }
            Version::V6 => {
                program.push(SET_INDEX, V6_LENGTH).load(LOAD_BYTE, V6_NEXT);
                V6_MORE.iter().for_each(|more| program.when(*more, ALL));
            }
        }
        for proto in [Proto::Tcp, Proto::Udp] {
            let ports = self.ports.iter().filter(|(other, _)| *other == proto);
            program.ports(proto, &ports.map(|(_, port)| u32::from(*port)).collect::<Vec<_>>());
        }
        program.end()
    }
}

#[derive(Default)]
struct Program(Vec<(u32, u8, u8, u32)>);

impl Program {
    fn push(&mut self, code: u32, value: u32) -> &mut Self {
        self.0.push((code, 0, 0, value));
        self
    }

    fn load(&mut self, code: u32, at: u32) -> &mut Self {
        self.push(code, at)
    }

    /// Ends with `answer` if that is what was loaded.
    fn when(&mut self, value: u32, answer: u32) {
        self.0.push((IF_EQUAL, 0, 1, value));
        self.push(RETURN, answer);
    }

    /// Lets a packet through if any of these bits is set.
    fn bits(&mut self, bits: u32) {
        self.0.push((IF_ANY_BIT, 0, 1, bits));
        self.push(RETURN, ALL);
    }

    /// Leaves a packet out unless one of these was loaded. A jump leads over 255 instructions.
    fn unless(&mut self, values: &[u32]) {
        let values = &values[..values.len().min(250)];
        for (index, value) in values.iter().enumerate() {
            let over = (values.len() - index) as u8;
            self.0.push((IF_EQUAL, over, 0, *value));
        }
        self.push(RETURN, 0);
    }

    /// With the protocol loaded: lets its ports through, and goes on with other protocols.
    fn ports(&mut self, proto: Proto, ports: &[u32]) {
        let ports = &ports[..ports.len().min(120)];
        let over = 2 + 2 * ports.len() as u8;
        self.0.push((IF_EQUAL, 0, over, u32::from(proto.number())));
        self.load(LOAD_HALF_BEHIND, IP + DESTINATION_PORT);
        ports.iter().for_each(|port| self.when(*port, ALL));
        self.push(RETURN, 0);
    }

    fn end(mut self) -> Vec<SockFilter> {
        self.push(RETURN, 0);
        let instruction = |(code, yes, no, value)| SockFilter::new(code as u16, yes, no, value);
        self.0.into_iter().map(instruction).collect()
    }
}
