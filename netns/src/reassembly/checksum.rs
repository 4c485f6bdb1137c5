//! The internet checksum, for packets that no one has verified yet.

use std::net::IpAddr;

/// A ones' complement sum under way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes; only the last call may have an odd number of them.
    #[must_use]
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        Self(sum + u64::from(u32::from_be_bytes(last)))
    }

    /// Adds what TCP and UDP sum up besides their own bytes.
    #[must_use]
    pub(super) fn pseudo_header(
        self,
        source: IpAddr,
        destination: IpAddr,
        proto: u8,
        len: usize,
    ) -> Self {
        let sum = self.address(source).address(destination);
        Self(sum.0 + u64::from(proto) + len as u64)
    }

    /// Whether the sum, which includes the checksum itself, is right.
    #[must_use]
    pub(super) fn is_right(self) -> bool {
        self.folded() == 0xffff
    }

    pub(super) fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.add(&address.octets()),
            IpAddr::V6(address) => self.add(&address.octets()),
        }
    }
}
