//! Frames to bytes and back.

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    ClientAddr, Delivery, Description, Errno, Frame, MAX_DATA, MAX_FRAME, MAX_REASON, Open,
    OrigDst, Port, StreamId, TunnelId,
};
use crate::control::Protocol;
use crate::unix::{UnixKind, UnixName};

/// Why bytes are no frame; the tunnel that carried them ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame ends within a field.
    #[error("frame ends within a field")]
    Truncated,
    /// Bytes are left behind the last field.
    #[error("frame has bytes behind its last field")]
    Trailing,
    /// A newer or foreign peer.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// A field has a value that it can't have.
    #[error("impossible value in field {0}")]
    Value(&'static str),
    /// A field or the whole frame is longer than allowed.
    #[error("{0} is too long")]
    TooLong(&'static str),
}

mod kind {
    pub const OPEN: u8 = 1;
    pub const OPENED: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const DATA: u8 = 4;
    pub const DATAGRAM: u8 = 5;
    pub const WINDOW: u8 = 6;
    pub const FIN: u8 = 7;
    pub const RESET: u8 = 8;
    pub const SUBSCRIBE: u8 = 9;
    pub const SUBSCRIBED: u8 = 10;
    pub const UNSUBSCRIBE: u8 = 11;
    pub const DESCRIBE: u8 = 12;
    pub const DESCRIPTION: u8 = 13;
    pub const PING: u8 = 14;
    pub const PONG: u8 = 15;
    pub const MIRROR_LOSS: u8 = 16;
    pub const HELLO: u8 = 17;
    pub const RECEIVED: u8 = 18;
    pub const HANDED: u8 = 19;
    pub const BROUGHT: u8 = 20;
    pub const HAND: u8 = 21;
    pub const WANT: u8 = 22;
    pub const SPARE: u8 = 23;
}

/// The bytes of a [`Frame::Data`] before its payload.
pub const DATA_HEADER: usize = 1 + 4 + 8;

/// The header of a [`Frame::Data`], for a caller that has the payload right behind it already.
pub fn data_header(stream: StreamId, offset: u64) -> [u8; DATA_HEADER] {
    let mut header = [0; DATA_HEADER];
    header[0] = kind::DATA;
    header[1..5].copy_from_slice(&stream.0.to_be_bytes());
    header[5..].copy_from_slice(&offset.to_be_bytes());
    header
}

impl Frame {
    /// The frame as one WebSocket message.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(64);
        let out = &mut bytes;
        match self {
            Self::Open(stream, open) => {
                put_stream(out, kind::OPEN, *stream);
                put_open(out, open);
            }
            Self::Opened(stream) => put_stream(out, kind::OPENED, *stream),
            Self::Refused(stream, errno) => {
                put_stream(out, kind::REFUSED, *stream);
                out.put_i32(errno.0);
            }
            Self::Data(stream, offset, payload) => {
                out.put_slice(&data_header(*stream, *offset));
                out.put_slice(payload);
            }
            Self::Datagram(stream, payload) => {
                put_stream(out, kind::DATAGRAM, *stream);
                out.put_slice(payload);
            }
            Self::Window { stream, consumed, limit } => {
                put_stream(out, kind::WINDOW, *stream);
                out.put_u64(*consumed);
                out.put_u64(*limit);
            }
            Self::Fin(stream, offset) => {
                put_stream(out, kind::FIN, *stream);
                out.put_u64(*offset);
            }
            Self::Reset(stream) => put_stream(out, kind::RESET, *stream),
            Self::Subscribe(port, delivery) => {
                put_port(out, kind::SUBSCRIBE, *port);
                out.put_u8(delivery_code(*delivery));
            }
            Self::Subscribed(port, error) => {
                put_port(out, kind::SUBSCRIBED, *port);
                out.put_u8(u8::from(error.is_some()));
                put_text(out, error.as_deref().unwrap_or_default());
            }
            Self::Unsubscribe(port) => put_port(out, kind::UNSUBSCRIBE, *port),
            Self::Describe { env } => out.put_slice(&[kind::DESCRIBE, u8::from(*env)]),
            Self::Description(description) => put_description(out, description),
            Self::Ping(number) => put_number(out, kind::PING, *number),
            Self::Pong(number) => put_number(out, kind::PONG, *number),
            Self::Handed(stream) => put_stream(out, kind::HANDED, *stream),
            Self::Hand(wanted) => out.put_slice(&[kind::HAND, u8::from(*wanted)]),
            Self::Want { v6, count } => out.put_slice(&[kind::WANT, u8::from(*v6), *count]),
            Self::Spare { v6 } => out.put_slice(&[kind::SPARE, u8::from(*v6)]),
            Self::Brought(open) => {
                out.put_u8(kind::BROUGHT);
                put_open(out, open);
            }
            Self::Hello { tunnel, received, descriptors } => {
                put_number(out, kind::HELLO, tunnel.0);
                out.put_u8(u8::from(*descriptors));
                out.put_u8(u8::from(received.is_some()));
                out.put_u64(received.unwrap_or_default());
            }
            Self::Received(number) => put_number(out, kind::RECEIVED, *number),
            Self::MirrorLoss { packets, connections } => {
                put_number(out, kind::MIRROR_LOSS, *packets);
                out.put_u64(*connections);
            }
        }
        bytes.freeze()
    }

    /// Reads one WebSocket message; payloads share its memory.
    ///
    /// # Errors
    /// Whatever is not exactly one frame within the limits of this module.
    pub fn decode(mut bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_FRAME {
            return Err(DecodeError::TooLong("frame"));
        }
        let input = &mut bytes;
        let kind = input.try_get_u8().map_err(|_| DecodeError::Truncated)?;
        let frame = match kind {
            kind::OPEN => Self::Open(get_stream(input)?, get_open(input)?),
            kind::OPENED => Self::Opened(get_stream(input)?),
            kind::REFUSED => {
                let stream = get_stream(input)?;
                let errno = input.try_get_i32().map_err(|_| DecodeError::Truncated)?;
                if !(1..4096).contains(&errno) {
                    return Err(DecodeError::Value("errno"));
                }
                Self::Refused(stream, Errno(errno))
            }
            kind::DATA => Self::Data(get_stream(input)?, get_u64(input)?, get_payload(input)?),
            kind::DATAGRAM => Self::Datagram(get_stream(input)?, get_payload(input)?),
            kind::WINDOW => Self::Window {
                stream: get_stream(input)?,
                consumed: get_u64(input)?,
                limit: get_u64(input)?,
            },
            kind::FIN => Self::Fin(get_stream(input)?, get_u64(input)?),
            kind::RESET => Self::Reset(get_stream(input)?),
            other => Self::decode_session(other, input)?,
        };
        if bytes.is_empty() { Ok(frame) } else { Err(DecodeError::Trailing) }
    }

    fn decode_session(kind: u8, input: &mut Bytes) -> Result<Self, DecodeError> {
        Ok(match kind {
            kind::SUBSCRIBE => Self::Subscribe(get_port(input)?, get_delivery(input)?),
            kind::SUBSCRIBED => {
                let port = get_port(input)?;
                let failed = get_bool(input)?;
                let reason = get_text(input, MAX_REASON, "reason")?;
                Self::Subscribed(port, failed.then_some(reason))
            }
            kind::UNSUBSCRIBE => Self::Unsubscribe(get_port(input)?),
            kind::DESCRIBE => Self::Describe { env: get_bool(input)? },
            kind::DESCRIPTION => Self::Description(Box::new(get_description(input)?)),
            kind::PING => Self::Ping(get_u64(input)?),
            kind::PONG => Self::Pong(get_u64(input)?),
            kind::HELLO => {
                let tunnel = TunnelId(get_u64(input)?);
                let descriptors = get_bool(input)?;
                let known = get_bool(input)?;
                let received = get_u64(input)?;
                if !known && received != 0 {
                    return Err(DecodeError::Value("received"));
                }
                Self::Hello { tunnel, received: known.then_some(received), descriptors }
            }
            kind::HANDED => Self::Handed(get_stream(input)?),
            kind::HAND => Self::Hand(get_bool(input)?),
            kind::BROUGHT => Self::Brought(get_open(input)?),
            kind::WANT => Self::Want { v6: get_bool(input)?, count: get_u8(input)? },
            kind::SPARE => Self::Spare { v6: get_bool(input)? },
            kind::RECEIVED => Self::Received(get_u64(input)?),
            kind::MIRROR_LOSS => {
                Self::MirrorLoss { packets: get_u64(input)?, connections: get_u64(input)? }
            }
            other => return Err(DecodeError::Kind(other)),
        })
    }
}

fn put_stream(out: &mut BytesMut, kind: u8, stream: StreamId) {
    out.put_u8(kind);
    out.put_u32(stream.0);
}

fn put_number(out: &mut BytesMut, kind: u8, number: u64) {
    out.put_u8(kind);
    out.put_u64(number);
}

fn put_port(out: &mut BytesMut, kind: u8, port: Port) {
    out.put_u8(kind);
    out.put_u8(protocol_code(port.protocol));
    out.put_u16(port.number);
}

fn put_open(out: &mut BytesMut, open: &Open) {
    match open {
        Open::Connect(protocol, OrigDst(address)) => {
            out.put_slice(&[1, protocol_code(*protocol)]);
            put_address(out, *address);
        }
        Open::Incoming { protocol, delivery, client, server } => {
            out.put_slice(&[2, protocol_code(*protocol), delivery_code(*delivery)]);
            put_address(out, client.0);
            put_address(out, server.0);
        }
        Open::Echo(to) => {
            out.put_u8(4);
            put_address(out, to.0);
        }
        Open::ConnectUnix(kind, name) => {
            let name = name.as_bytes();
            out.put_slice(&[3, *kind as u8, u8::try_from(name.len()).unwrap_or_default()]);
            out.put_slice(name);
        }
    }
}

fn get_open(input: &mut Bytes) -> Result<Open, DecodeError> {
    match get_u8(input)? {
        1 => Ok(Open::Connect(get_protocol(input)?, OrigDst(get_address(input)?))),
        2 => Ok(Open::Incoming {
            protocol: get_protocol(input)?,
            delivery: get_delivery(input)?,
            client: ClientAddr(get_address(input)?),
            server: OrigDst(get_address(input)?),
        }),
        4 => Ok(Open::Echo(OrigDst(get_address(input)?))),
        3 => {
            let kind = UnixKind::of(get_u8(input)?).ok_or(DecodeError::Value("kind"))?;
            let len = usize::from(get_u8(input)?);
            let bytes = take(input, len)?;
            let name = UnixName::new(&bytes).filter(|name| name.as_bytes().len() == bytes.len());
            Ok(Open::ConnectUnix(kind, name.ok_or(DecodeError::Value("name"))?))
        }
        _ => Err(DecodeError::Value("open")),
    }
}

fn put_description(out: &mut BytesMut, description: &Description) {
    out.put_u8(kind::DESCRIPTION);
    put_text(out, &description.hostname);
    out.put_u16(u16::try_from(description.addresses.len()).unwrap_or(u16::MAX));
    for (ip, prefix) in description.addresses.iter().take(usize::from(u16::MAX)) {
        put_ip(out, *ip);
        out.put_u8(*prefix);
    }
    for part in [&description.resolv_conf, &description.hosts, &description.environ] {
        put_blob(out, part);
    }
}

fn get_description(input: &mut Bytes) -> Result<Description, DecodeError> {
    let hostname = get_text(input, MAX_REASON, "host name")?;
    let count = input.try_get_u16().map_err(|_| DecodeError::Truncated)?;
    let mut addresses = Vec::new();
    for _ in 0..count {
        let (ip, prefix) = (get_ip(input)?, get_u8(input)?);
        if prefix > if ip.is_ipv4() { 32 } else { 128 } {
            return Err(DecodeError::Value("prefix"));
        }
        addresses.push((ip, prefix));
    }
    Ok(Description {
        hostname,
        addresses,
        resolv_conf: get_blob(input)?,
        hosts: get_blob(input)?,
        environ: get_blob(input)?,
    })
}

fn put_blob(out: &mut BytesMut, blob: &[u8]) {
    out.put_u32(u32::try_from(blob.len()).unwrap_or(u32::MAX));
    out.put_slice(blob);
}

fn get_blob(input: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = input.try_get_u32().map_err(|_| DecodeError::Truncated)? as usize;
    take(input, len)
}

fn put_text(out: &mut BytesMut, text: &str) {
    let mut end = text.len().min(MAX_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    put_blob(out, &text.as_bytes()[..end]);
}

fn get_text(input: &mut Bytes, max: usize, field: &'static str) -> Result<String, DecodeError> {
    let blob = get_blob(input)?;
    if blob.len() > max {
        return Err(DecodeError::TooLong(field));
    }
    String::from_utf8(blob.to_vec()).map_err(|_| DecodeError::Value(field))
}

fn put_ip(out: &mut BytesMut, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
}

fn get_ip(input: &mut Bytes) -> Result<IpAddr, DecodeError> {
    match get_u8(input)? {
        4 => input.try_get_u32().map(|bits| IpAddr::from(bits.to_be_bytes())),
        6 => input.try_get_u128().map(|bits| IpAddr::from(bits.to_be_bytes())),
        _ => return Err(DecodeError::Value("address family")),
    }
    .map_err(|_| DecodeError::Truncated)
}

fn put_address(out: &mut BytesMut, address: SocketAddr) {
    put_ip(out, address.ip());
    out.put_u16(address.port());
}

fn get_address(input: &mut Bytes) -> Result<SocketAddr, DecodeError> {
    let ip = get_ip(input)?;
    let port = input.try_get_u16().map_err(|_| DecodeError::Truncated)?;
    Ok(SocketAddr::new(ip, port))
}

fn get_payload(input: &mut Bytes) -> Result<Bytes, DecodeError> {
    if input.len() > MAX_DATA {
        return Err(DecodeError::TooLong("payload"));
    }
    take(input, input.len())
}

fn take(input: &mut Bytes, len: usize) -> Result<Bytes, DecodeError> {
    if len > input.len() {
        return Err(DecodeError::Truncated);
    }
    Ok(input.split_to(len))
}

fn get_u8(input: &mut Bytes) -> Result<u8, DecodeError> {
    input.try_get_u8().map_err(|_| DecodeError::Truncated)
}

fn get_u64(input: &mut Bytes) -> Result<u64, DecodeError> {
    input.try_get_u64().map_err(|_| DecodeError::Truncated)
}

fn get_bool(input: &mut Bytes) -> Result<bool, DecodeError> {
    match get_u8(input)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Value("flag")),
    }
}

fn get_stream(input: &mut Bytes) -> Result<StreamId, DecodeError> {
    input.try_get_u32().map(StreamId).map_err(|_| DecodeError::Truncated)
}

fn get_port(input: &mut Bytes) -> Result<Port, DecodeError> {
    let protocol = get_protocol(input)?;
    let number = input.try_get_u16().map_err(|_| DecodeError::Truncated)?;
    Ok(Port { protocol, number })
}

fn protocol_code(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn get_protocol(input: &mut Bytes) -> Result<Protocol, DecodeError> {
    match get_u8(input)? {
        6 => Ok(Protocol::Tcp),
        17 => Ok(Protocol::Udp),
        _ => Err(DecodeError::Value("protocol")),
    }
}

fn delivery_code(delivery: Delivery) -> u8 {
    match delivery {
        Delivery::Mirror => 1,
        Delivery::Steal => 2,
    }
}

fn get_delivery(input: &mut Bytes) -> Result<Delivery, DecodeError> {
    match get_u8(input)? {
        1 => Ok(Delivery::Mirror),
        2 => Ok(Delivery::Steal),
        _ => Err(DecodeError::Value("delivery")),
    }
}

#[cfg(test)]
mod tests;
