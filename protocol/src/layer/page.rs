//! The memory that the proxy writes and every process of the session maps to read: where each
//! thing is, in bytes. Integers are little-endian. The file is sparse.
//!
//! What the layer reads was complete before the socket address that leads to it could be seen; only
//! an [`outcome`] changes while it is looked at, and is one aligned word.

use core::net::SocketAddr;

use super::{ADDRESS_LEN, SLOTS, Slot, Transport, encode_address};
use crate::unix::MAX_UNIX_NAME;

/// At offset 0: what the memory begins with, and its version.
pub const MAGIC: u64 = u64::from_le_bytes(*b"mirrord\x01");
/// The port of every slot that stands for a remote address of datagrams; 2 bytes, 0 if unknown.
pub const DATAGRAMS: usize = 8;
/// What concerns the layer: 1 byte, of these.
pub const CONCERNS: usize = 10;
/// Connections to unix sockets are asked about.
pub const CONCERNS_UNIX: u8 = 1;
/// Nothing else is: the kernel redirects.
pub const CONCERNS_ONLY_UNIX: u8 = 2;
/// The target's host name, NUL-terminated; empty if the machine's own is to be seen.
pub const HOSTNAME: usize = 16;
/// Bytes of the host name with its NUL: HOST_NAME_MAX + 1.
pub const HOSTNAME_LEN: usize = 65;
/// Names of programs that the layer leaves alone, each NUL-terminated, an empty one last.
pub const SKIPPED: usize = 128;
/// Bytes of all of these.
pub const SKIPPED_LEN: usize = 8192 - SKIPPED;

/// By a fake port, first of TCP, then of UDP: the address that the app asked for.
const ASKED: usize = 8192;
const PORTS: usize = 1 << 16;
/// By the port that the app asked for, first of TCP, then of UDP: the fake port, or 0.
const FAKE: usize = ASKED + 2 * PORTS * ADDRESS_LEN;
/// By slot.
const SLOT_TABLE: usize = FAKE + 2 * PORTS * 2;
/// Bytes of a slot: outcome, remote address, local address.
const SLOT_LEN: usize = 64;
const SLOT_REMOTE: usize = 8;
const SLOT_LOCAL: usize = 32;
/// Remote addresses of datagrams: by [`hash`], the slot's number plus 1, or 0.
const INDEX: usize = SLOT_TABLE + SLOTS as usize * SLOT_LEN;
/// Entries of the index.
pub const INDEX_LEN: u32 = 1 << 16;
/// How many entries from its hash on an address may stand.
pub const INDEX_PROBES: u32 = 8;
/// Unix sockets of the target that the app has connected to: the length of a name, and the name.
const UNIX: usize = INDEX + INDEX_LEN as usize * 4;
/// Bytes of such an entry.
pub const UNIX_LEN: usize = 112;
/// Such entries.
pub const UNIX_NAMES: u32 = 1 << UNIX_BITS;
/// Bits of the number in a [`super::unix_stand_in`] that are an entry's number: the lowest.
pub const UNIX_BITS: u32 = 12;
/// Bytes of the whole.
pub const LEN: usize = UNIX + UNIX_NAMES as usize * UNIX_LEN;

/// A connection that was not decided yet.
pub const PENDING: u32 = 0;
/// A connection that stands.
pub const CONNECTED: u32 = 1;
/// Added to an errno: a connection that failed.
pub const FAILED: u32 = 0x1000;

/// Where the address is that the app asked for when it got this fake port; [`ADDRESS_LEN`] bytes.
pub const fn asked(transport: Transport, fake: u16) -> usize {
    ASKED + (transport as usize * PORTS + fake as usize) * ADDRESS_LEN
}

/// Where the fake port is that stands for a port of the app; 2 bytes.
pub const fn fake(transport: Transport, port: u16) -> usize {
    FAKE + (transport as usize * PORTS + port as usize) * 2
}

/// Where a slot's remote address is; [`ADDRESS_LEN`] bytes.
pub const fn remote(slot: Slot) -> usize {
    SLOT_TABLE + (slot.0 % SLOTS) as usize * SLOT_LEN + SLOT_REMOTE
}

/// Where a slot's local address is, as the target's network sees it; [`ADDRESS_LEN`] bytes.
pub const fn local(slot: Slot) -> usize {
    SLOT_TABLE + (slot.0 % SLOTS) as usize * SLOT_LEN + SLOT_LOCAL
}

/// Where the outcome of a slot's connection is; 4 bytes.
pub const fn outcome(slot: Slot) -> usize {
    SLOT_TABLE + (slot.0 % SLOTS) as usize * SLOT_LEN
}

/// Where an entry of the index of remote addresses of datagrams is; 4 bytes.
pub const fn index(entry: u32) -> usize {
    INDEX + (entry % INDEX_LEN) as usize * 4
}

/// Where the name of a unix socket of the target is; [`UNIX_LEN`] bytes.
pub const fn unix(number: u32) -> usize {
    UNIX + (number % UNIX_NAMES) as usize * UNIX_LEN
}

/// Where in the index an address is looked for first (FNV-1a, 32 bits).
pub fn hash(address: SocketAddr) -> u32 {
    encode_address(Some(address))
        .iter()
        .fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

const _: () = {
    assert!(UNIX_LEN > MAX_UNIX_NAME && HOSTNAME > CONCERNS);
    assert!(SKIPPED >= HOSTNAME + HOSTNAME_LEN);
    assert!(SLOT_REMOTE + ADDRESS_LEN <= SLOT_LOCAL && SLOT_LOCAL + ADDRESS_LEN <= SLOT_LEN);
    assert!(SLOT_TABLE.is_multiple_of(SLOT_LEN) && INDEX.is_multiple_of(4));
};
