//! What a mirror captures: any packets, raw ones and ones that are right but for their fields. What
//! is kept stays within its limits.

#![no_main]

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use mirrord_netns::Proto;
use mirrord_netns::reassembly::{Checksum, Event, Flows, Frame, Limits, Meta, Ports};

const LIMITS: Limits = Limits {
    flows: 8,
    opening: 4,
    waiting_per_flow: 2000,
    waiting: 3000,
    queued: 4000,
    fragments: 4000,
    hole: Duration::from_secs(5),
    handshake: Duration::from_secs(60),
    linger: Duration::from_secs(60),
    idle: Duration::from_secs(600),
};

fuzz_target!(|data: &[u8]| {
    let mut ports = Ports::new();
    ports.insert(Proto::Tcp, 80);
    ports.insert(Proto::Udp, 53);
    let mut flows = Flows::new(LIMITS);
    let mut now = Instant::now();
    let mut rest = data;
    while let Some(([how, len, wait], more)) = rest.split_first_chunk() {
        let (body, behind) = more.split_at(usize::from(*len).min(more.len()));
        rest = behind;
        now += Duration::from_secs((*wait).into());
        let packet = match how % 4 {
            0 => body.to_vec(),
            1 => ipv4(17, &[&[0, 9, 0, 53], &udp_length(body)[..], body].concat()),
            _ => ipv4(6, &segment(body)),
        };
        let meta = Meta {
            checksum: if how & 16 == 0 { Checksum::Trusted } else { Checksum::Unverified },
            segment: NonZeroU16::new(u16::from(how >> 5)),
            truncated: how & 8 != 0,
        };
        flows.packet(&ports, Frame::Borrowed(&packet), meta, now);
        flows.expire(now);
        take(&mut flows, how & 4 != 0);
    }
});

fn take(flows: &mut Flows, all: bool) {
    let counts = flows.counts();
    assert!(counts.flows <= LIMITS.flows && counts.opening <= LIMITS.opening);
    assert!(counts.waiting <= LIMITS.waiting);
    while let Some(event) = flows.next().filter(|_| all) {
        if let Event::Opened { server, .. } = event {
            assert_eq!(server.port(), 80);
        }
    }
}

/// Sequence number and flags from the first two bytes, from one of four clients.
fn segment(body: &[u8]) -> Vec<u8> {
    let (place, flags) = (body.first().copied().unwrap_or(0), body.get(1).copied().unwrap_or(2));
    let mut bytes = vec![0, place & 3, 0, 80];
    bytes.extend(u32::from(place >> 2).wrapping_sub(8).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(body.get(2..).unwrap_or_default());
    bytes
}

fn udp_length(body: &[u8]) -> [u8; 4] {
    let [high, low] = (8 + body.len() as u16).to_be_bytes();
    [high, low, 0, 0]
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let mut bytes = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    let sum =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    bytes
}
