//! What a worker before this one has written to the shared memory.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;

use mirrord_protocol::layer::{ADDRESS_LEN, SLOTS, Slot, Transport, decode_address, page};

/// What the app's processes know, and a new worker has to know as well.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Fake ports, and what was asked for.
    pub(crate) asked: Vec<(Transport, u16, SocketAddr)>,
    /// The slots of remote addresses of datagrams.
    pub(crate) peers: Vec<(SocketAddr, Slot)>,
    /// The port of all slots for datagrams, or 0.
    pub(crate) datagrams: u16,
    /// All slots from here on were never used.
    pub(crate) slots: u32,
}

impl Past {
    /// Reads the memory; one that is new has no past.
    pub(super) fn read(memory: &File) -> io::Result<Self> {
        let mut magic = [0; 8];
        memory.read_exact_at(&mut magic, 0)?;
        if u64::from_le_bytes(magic) != page::MAGIC {
            return Ok(Self::default());
        }
        let mut bytes = vec![0; page::LEN];
        memory.read_exact_at(&mut bytes, 0)?;
        Ok(Self::of(&Bytes(&bytes)))
    }

    fn of(bytes: &Bytes<'_>) -> Self {
        let asked = [Transport::Tcp, Transport::Udp].into_iter().flat_map(|transport| {
            (1..=u16::MAX).filter_map(move |fake| {
                Some((transport, fake, bytes.address(page::asked(transport, fake))?))
            })
        });
        let peers = (0..page::INDEX_LEN).filter_map(|entry| {
            let slot = Slot(bytes.word(page::index(entry)).checked_sub(1)?);
            Some((bytes.address(page::remote(slot))?, slot))
        });
        let used = (0..SLOTS).rev().find(|slot| bytes.address(page::remote(Slot(*slot))).is_some());
        Self {
            asked: asked.collect(),
            peers: peers.collect(),
            datagrams: (bytes.word(page::DATAGRAMS) & 0xffff) as u16,
            slots: used.map_or(0, |slot| slot + 1),
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn word(&self, at: usize) -> u32 {
        let word = self.0.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u32::from_le_bytes(*word))
    }

    fn address(&self, at: usize) -> Option<SocketAddr> {
        decode_address(self.0.get(at..)?.first_chunk::<ADDRESS_LEN>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::{Ends, Memory};
    use super::*;

    #[test]
    fn what_was_written_is_known_again_and_a_new_memory_knows_nothing() {
        let file = super::super::memory::create().unwrap();
        assert_eq!(Past::read(&file).unwrap(), Past::default());
        let memory = Memory::of(file.try_clone().unwrap(), &[]).unwrap();
        let remote: SocketAddr = "10.96.0.10:53".parse().unwrap();
        let wanted: SocketAddr = "0.0.0.0:80".parse().unwrap();
        memory.set_datagrams(4711).unwrap();
        memory.set_asked(Transport::Udp, 40_001, Some(wanted)).unwrap();
        memory.set_slot(Slot(7), Ends { remote: Some(remote), local: None }).unwrap();
        memory.index(remote, Slot(7)).unwrap();
        let expected = Past {
            asked: vec![(Transport::Udp, 40_001, wanted)],
            peers: vec![(remote, Slot(7))],
            datagrams: 4711,
            slots: 8,
        };
        assert_eq!(Past::read(&file).unwrap(), expected);
    }
}
