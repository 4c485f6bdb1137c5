//! The words in which netfilter's tables are asked for: nfnetlink messages of nested attributes
//! (linux/netfilter/nf_tables.h).

use std::net::{IpAddr, SocketAddr};

pub(super) const NEW_TABLE: u16 = 0;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const DELETE_RULE: u16 = 8;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
/// The table goes with the socket that made it.
pub(super) const OWNED: u32 = 2;

pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
pub(super) const PREROUTING: u32 = 0;
/// As a signed number -150.
pub(super) const MANGLE: u32 = 150_u32.wrapping_neg();

pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;

const NESTED: u16 = 0x8000;
const SUBSYSTEM: u16 = 10;
const FAMILY_INET: u8 = 1;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const ERROR: u16 = 2;
const HEADER: usize = 16;

const FIRST: u32 = 1;
const SECOND: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const META_INPUT_DEVICE: u32 = 4;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// One request.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: Attributes,
}

impl Message {
    pub(super) fn bytes(self, flags: u16, sequence: u32) -> Vec<u8> {
        let kind = SUBSYSTEM << 8 | self.kind;
        message(kind, self.flags | flags, sequence, FAMILY_INET, 0, &self.body.0)
    }
}

/// The begin or the end of a batch.
pub(super) fn edge(begin: bool, sequence: u32) -> Vec<u8> {
    let kind = if begin { BATCH_BEGIN } else { BATCH_END };
    message(kind, netlink_packet_core::NLM_F_REQUEST, sequence, 0, SUBSYSTEM, &[])
}

fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    body: &[u8],
) -> Vec<u8> {
    let length = (HEADER + 4 + body.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// The acknowledgements in what was read: of which message, and the error's number, negative or 0.
pub(super) fn answers(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
        u32::from_ne_bytes(word.unwrap_or_default())
    };
    let mut answers = Vec::new();
    while bytes.len() >= HEADER + 4 {
        let length = (word(bytes, 0) as usize).max(HEADER);
        if u16::from_ne_bytes([bytes[4], bytes[5]]) == ERROR {
            answers.push((word(bytes, 8), word(bytes, HEADER).cast_signed()));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// Attributes, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat())
    }

    pub(super) fn number(&mut self, kind: u16, number: u32) -> &mut Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::new();
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.0)
    }

    fn bytes(&mut self, kind: u16, bytes: &[u8]) -> &mut Self {
        self.0.extend(((4 + bytes.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nested(1, |element| {
            element.text(1, name).nested(2, fill);
        })
    }

    fn meta(&mut self, key: u32) -> &mut Self {
        self.expression("meta", |meta| {
            meta.number(1, FIRST).number(2, key);
        })
    }

    fn header(&mut self, header: u32, offset: u32, length: u32) -> &mut Self {
        self.expression("payload", |payload| {
            payload.number(1, FIRST).number(2, header).number(3, offset).number(4, length);
        })
    }

    fn compare(&mut self, how: u32, with: &[u8]) -> &mut Self {
        self.expression("cmp", |compare| {
            compare.number(1, FIRST).number(2, how).nested(3, |data| {
                data.bytes(1, with);
            });
        })
    }

    fn constant(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.expression("immediate", |immediate| {
            immediate.number(1, register).nested(2, |data| {
                data.bytes(1, value);
            });
        })
    }

    pub(super) fn not_from_device(&mut self, index: u32) -> &mut Self {
        self.meta(META_INPUT_DEVICE).compare(NOT_EQUAL, &index.to_ne_bytes())
    }

    pub(super) fn of_family(&mut self, like: IpAddr) -> &mut Self {
        self.meta(META_FAMILY).compare(EQUAL, &[family(like)])
    }

    pub(super) fn of_protocol(&mut self, number: u8) -> &mut Self {
        self.meta(META_PROTOCOL).compare(EQUAL, &[number])
    }

    pub(super) fn dst_address(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(address) => {
                self.header(NETWORK_HEADER, 16, 4).compare(EQUAL, &address.octets())
            }
            IpAddr::V6(address) => {
                self.header(NETWORK_HEADER, 24, 16).compare(EQUAL, &address.octets())
            }
        }
    }

    pub(super) fn dst_port(&mut self, port: u16) -> &mut Self {
        self.header(TRANSPORT_HEADER, 2, 2).compare(EQUAL, &port.to_be_bytes())
    }

    /// Whoever has an open connection keeps it; what is new is for that socket.
    pub(super) fn taken_by(&mut self, socket: SocketAddr) -> &mut Self {
        match socket.ip() {
            IpAddr::V4(address) => self.constant(FIRST, &address.octets()),
            IpAddr::V6(address) => self.constant(FIRST, &address.octets()),
        };
        self.constant(SECOND, &socket.port().to_be_bytes()).expression("tproxy", |tproxy| {
            let family = u32::from(family(socket.ip()));
            tproxy.number(1, family).number(2, FIRST).number(3, SECOND);
        })
    }
}

/// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}
