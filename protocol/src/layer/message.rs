//! What a process asks of the proxy: one request of a fixed size a connection, one reply.

use core::net::SocketAddr;

use super::{ADDRESS_LEN, KEY_LEN, Slot, Transport, decode_address, encode_address};
use crate::unix::{UnixKind, UnixName};

/// Bytes of every request.
pub const REQUEST_LEN: usize = 320;
/// Bytes that every reply begins with.
pub const REPLY_LEN: usize = 16;
/// The longest domain name (RFC 1035), without its last dot.
pub const MAX_NAME: usize = 253;
/// The most bytes that may follow a reply: a DNS message.
pub const MAX_PAYLOAD: usize = 64 << 10;

const KIND: usize = KEY_LEN;
const BODY: usize = KEY_LEN + 1;

/// A domain name as typed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    len: u8,
}

impl Name {
    /// `None` if it is empty or too long.
    pub fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_NAME];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        let len = u8::try_from(name.len()).ok().filter(|len| *len > 0)?;
        Some(Self { bytes, len })
    }

    /// As typed.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

/// A question of a process; some carry a descriptor (SCM_RIGHTS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Asks for the memory of [`super::page`]: the reply carries its descriptor.
    Map,
    /// Carries a socket to be bound in the app's place. The value of the reply is the fake port.
    Bind {
        /// Of the socket.
        transport: Transport,
        /// Where the app wants to be reached; never port 0.
        address: SocketAddr,
        /// Whether it shares the port with its likes (SO_REUSEPORT).
        shared: bool,
    },
    /// A socket that was bound to this fake port listens now.
    Listen {
        /// The fake port.
        fake: u16,
    },
    /// Carries a TCP socket to be connected, which the proxy binds to [`Slot::local`], unless it is
    /// bound. The value of the reply is the slot, its port the one to connect to at
    /// [`Slot::remote`]. The process connects; the proxy completes or breaks off the connection when
    /// it knows how the far end has answered.
    Dial {
        /// Whom the app wants.
        remote: SocketAddr,
    },
    /// Asks for the stand-in of a remote address of datagrams. The value of the reply is the slot,
    /// its port the one to send to at [`Slot::remote`]; answers come from there.
    Peer {
        /// Whom the app wants.
        remote: SocketAddr,
    },
    /// Asks for a name's addresses: search domains and hosts file are the target's. The payload of
    /// the reply is their number (2 bytes), the addresses, and the canonical name.
    Resolve {
        /// As typed.
        name: Name,
        /// Whether IPv4 addresses are wanted.
        v4: bool,
        /// Whether IPv6 addresses are wanted.
        v6: bool,
    },
    /// Asks a question of the target's name server. The payload of the reply is its answer, as
    /// RFC 1035 has it.
    Query {
        /// Whole, but for a last dot.
        name: Name,
        /// CLASS.
        class: u16,
        /// TYPE.
        kind: u16,
        /// Whether the search domains are tried as well.
        search: bool,
    },
    /// Carries a program that is about to be executed and that no library can be loaded into. The
    /// reply carries the one to execute instead, or refuses.
    Exec,
    /// Asks for a connection to a unix socket of the target; it is answered when that has answered.
    /// The value of the reply is the number in the name to connect to:
    /// [`super::unix_stand_in`].
    Unix {
        /// Of the process's socket.
        kind: UnixKind,
        /// Whom the app wants.
        name: UnixName,
    },
}

/// How a request was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Done = 0,
    /// Not our concern: the process does it as if there were no layer.
    Direct = 1,
    /// Refused; the value is an errno, or a [`Cause`] of a name.
    Refused = 2,
}

/// Why a name has no answer, as a value of [`Status::Refused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Cause {
    /// There is no such name: EAI_NONAME, HOST_NOT_FOUND.
    NotFound = 1,
    /// The name has no such record: EAI_NODATA, NO_DATA.
    NoData = 2,
    /// Nobody answered: EAI_AGAIN, TRY_AGAIN.
    TryAgain = 3,
    /// The name server failed: EAI_FAIL, NO_RECOVERY.
    Failed = 4,
}

impl Cause {
    /// The cause of this number.
    pub fn of(value: u32) -> Self {
        match value {
            1 => Self::NotFound,
            2 => Self::NoData,
            3 => Self::TryAgain,
            _ => Self::Failed,
        }
    }
}

/// The head of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// How it was taken.
    pub status: Status,
    /// See [`Request`].
    pub value: u32,
    /// See [`Request`].
    pub port: u16,
    /// Bytes that follow.
    pub payload: u32,
}

/// Bytes that are no request or no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError;

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a message of the layer")
    }
}

impl core::error::Error for DecodeError {}

impl Request {
    /// As bytes, behind the key.
    pub fn encode(&self, key: &[u8; KEY_LEN]) -> [u8; REQUEST_LEN] {
        let mut writer = Writer { bytes: [0; REQUEST_LEN], at: 0 };
        writer.put(key);
        match self {
            Self::Map => writer.put(&[0]),
            Self::Bind { transport, address, shared } => {
                writer.put(&[1, *transport as u8, u8::from(*shared)]);
                writer.put(&encode_address(Some(*address)));
            }
            Self::Listen { fake } => {
                writer.put(&[2]);
                writer.put(&fake.to_le_bytes());
            }
            Self::Dial { remote } => {
                writer.put(&[3]);
                writer.put(&encode_address(Some(*remote)));
            }
            Self::Peer { remote } => {
                writer.put(&[4]);
                writer.put(&encode_address(Some(*remote)));
            }
            Self::Resolve { name, v4, v6 } => {
                writer.put(&[5, u8::from(*v4), u8::from(*v6), name.len]);
                writer.put(name.as_bytes());
            }
            Self::Query { name, class, kind, search } => {
                writer.put(&[6, u8::from(*search)]);
                writer.put(&class.to_le_bytes());
                writer.put(&kind.to_le_bytes());
                writer.put(&[name.len]);
                writer.put(name.as_bytes());
            }
            Self::Exec => writer.put(&[7]),
            Self::Unix { kind, name } => {
                let name = name.as_bytes();
                writer.put(&[8, *kind as u8, u8::try_from(name.len()).unwrap_or_default()]);
                writer.put(name);
            }
        }
        writer.bytes
    }

    /// The key that was shown, and the request.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8; REQUEST_LEN]) -> Result<([u8; KEY_LEN], Self), DecodeError> {
        let mut reader = Reader(bytes);
        let key = reader.array()?;
        let request = match reader.byte()? {
            0 => Self::Map,
            1 => {
                let transport = match reader.byte()? {
                    0 => Transport::Tcp,
                    1 => Transport::Udp,
                    _ => return Err(DecodeError),
                };
                let shared = reader.flag()?;
                Self::Bind { transport, shared, address: reader.address()? }
            }
            2 => Self::Listen { fake: reader.short()? },
            3 => Self::Dial { remote: reader.address()? },
            4 => Self::Peer { remote: reader.address()? },
            5 => {
                let (v4, v6) = (reader.flag()?, reader.flag()?);
                Self::Resolve { v4, v6, name: reader.name()? }
            }
            6 => {
                let search = reader.flag()?;
                let (class, kind) = (reader.short()?, reader.short()?);
                Self::Query { class, kind, search, name: reader.name()? }
            }
            7 => Self::Exec,
            8 => {
                let kind = UnixKind::of(reader.byte()?).ok_or(DecodeError)?;
                Self::Unix { kind, name: reader.unix_name()? }
            }
            _ => return Err(DecodeError),
        };
        Ok((key, request))
    }
}

impl Reply {
    /// One without payload.
    pub fn new(status: Status, value: u32) -> Self {
        Self { status, value, port: 0, payload: 0 }
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; REPLY_LEN] {
        let mut writer = Writer { bytes: [0; REPLY_LEN], at: 0 };
        writer.put(&[self.status as u8, 0]);
        writer.put(&self.port.to_le_bytes());
        writer.put(&self.value.to_le_bytes());
        writer.put(&self.payload.to_le_bytes());
        writer.bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are no reply, or announce more than [`MAX_PAYLOAD`].
    pub fn decode(bytes: &[u8; REPLY_LEN]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let status = match reader.byte()? {
            0 => Status::Done,
            1 => Status::Direct,
            2 => Status::Refused,
            _ => return Err(DecodeError),
        };
        reader.byte()?;
        let port = reader.short()?;
        let value = u32::from_le_bytes(reader.array()?);
        let payload = u32::from_le_bytes(reader.array()?);
        match usize::try_from(payload) {
            Ok(len) if len <= MAX_PAYLOAD => Ok(Self { status, value, port, payload }),
            _ => Err(DecodeError),
        }
    }

    /// The slot that a reply names.
    pub fn slot(&self) -> Slot {
        Slot(self.value)
    }
}

/// The bytes that are too many are left out: every message fits, as the tests show.
struct Writer<const LEN: usize> {
    bytes: [u8; LEN],
    at: usize,
}

impl<const LEN: usize> Writer<LEN> {
    fn put(&mut self, bytes: &[u8]) {
        let room = self.bytes.iter_mut().skip(self.at);
        room.zip(bytes).for_each(|(to, from)| *to = *from);
        self.at += bytes.len();
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], DecodeError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(DecodeError)?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError),
        }
    }

    fn short(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn address(&mut self) -> Result<SocketAddr, DecodeError> {
        decode_address(&self.array::<ADDRESS_LEN>()?).ok_or(DecodeError)
    }

    fn name(&mut self) -> Result<Name, DecodeError> {
        let len = usize::from(self.byte()?);
        self.0.get(..len).and_then(Name::new).ok_or(DecodeError)
    }

    fn unix_name(&mut self) -> Result<UnixName, DecodeError> {
        let len = usize::from(self.byte()?);
        let name = self.0.get(..len).and_then(UnixName::new).ok_or(DecodeError)?;
        if name.as_bytes().len() == len { Ok(name) } else { Err(DecodeError) }
    }
}

const _: () = assert!(BODY + 7 + MAX_NAME <= REQUEST_LEN && KIND < BODY);

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        prop::collection::vec(any::<u8>(), 1..=MAX_NAME)
            .prop_map(|bytes| Name::new(&bytes).expect("a length that fits"))
    }

    fn unix_name() -> impl Strategy<Value = UnixName> {
        prop::collection::vec(any::<u8>(), 1..=crate::unix::MAX_UNIX_NAME)
            .prop_map(|bytes| UnixName::new(&bytes).expect("a name"))
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        let ip = prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        ];
        (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    fn request() -> impl Strategy<Value = Request> {
        let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
        prop_oneof![
            Just(Request::Map),
            (transport, address(), any::<bool>()).prop_map(|(transport, address, shared)| {
                Request::Bind { transport, address, shared }
            }),
            any::<u16>().prop_map(|fake| Request::Listen { fake }),
            address().prop_map(|remote| Request::Dial { remote }),
            address().prop_map(|remote| Request::Peer { remote }),
            (name(), any::<bool>(), any::<bool>()).prop_map(|(name, v4, v6)| Request::Resolve {
                name,
                v4,
                v6
            }),
            (name(), any::<u16>(), any::<u16>(), any::<bool>()).prop_map(
                |(name, class, kind, search)| Request::Query { name, class, kind, search }
            ),
            Just(Request::Exec),
            (prop_oneof![Just(UnixKind::Stream), Just(UnixKind::Packets)], unix_name())
                .prop_map(|(kind, name)| Request::Unix { kind, name }),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive_being_encoded(request in request(), key: [u8; KEY_LEN]) {
            prop_assert_eq!(Request::decode(&request.encode(&key)), Ok((key, request)));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(head: [u8; 32], rest: u8) {
            let mut bytes = [rest; REQUEST_LEN];
            bytes[..32].copy_from_slice(&head);
            if let Ok((key, request)) = Request::decode(&bytes) {
                prop_assert_eq!(Request::decode(&request.encode(&key)), Ok((key, request)));
            }
            let _ = Reply::decode(bytes.first_chunk().expect("long enough"));
        }
    }

    #[test]
    fn replies_survive_being_encoded() {
        for status in [Status::Done, Status::Direct, Status::Refused] {
            let reply = Reply { status, value: 0xdead_beef, port: 4711, payload: 65_536 };
            assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
        let reply = Reply { payload: 65_537, ..Reply::new(Status::Done, 0) };
        assert_eq!(Reply::decode(&reply.encode()), Err(DecodeError), "too long");
    }

    #[test]
    fn a_name_has_its_bounds() {
        assert_eq!(Name::new(b""), None);
        assert!(Name::new(&[b'a'; MAX_NAME]).is_some());
        assert_eq!(Name::new(&[b'a'; MAX_NAME + 1]), None);
    }
}
