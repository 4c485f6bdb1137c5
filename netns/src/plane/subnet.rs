//! Ranges of addresses.

use std::net::IpAddr;

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    /// Any address in it.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

impl Subnet {
    /// The range of one address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix: bits(address) }
    }

    /// Whether the prefix is one that the address's family can have.
    pub fn is_valid(&self) -> bool {
        self.prefix <= bits(self.address)
    }

    /// The range by its first address, as the kernel lists it.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let address = match self.address {
            IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & mask32(self.prefix)).into()),
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & mask128(self.prefix)).into()),
        };
        Self { address, prefix: self.prefix }
    }

    /// Whether an address is in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let other = Self { address: ip, prefix: self.prefix };
        other.is_valid()
            && self.address.is_ipv4() == ip.is_ipv4()
            && other.normalized() == self.normalized()
    }

    /// What two ranges have in common: nothing, or the smaller one.
    pub fn overlap(&self, other: &Self) -> Option<Self> {
        let (small, large) =
            if self.prefix >= other.prefix { (self, other) } else { (other, self) };
        large.contains(small.address).then(|| small.normalized())
    }
}

/// How many bits an address of this family has.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask32(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn mask128(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').expect("a slash");
        Subnet {
            address: address.parse().expect("an address"),
            prefix: prefix.parse().expect("a prefix"),
        }
    }

    #[test]
    fn two_subnets_have_the_smaller_one_in_common() {
        let common = |a, b| subnet(a).overlap(&subnet(b));
        assert_eq!(common("172.17.0.5/16", "172.17.3.9/24"), Some(subnet("172.17.3.0/24")));
        assert_eq!(common("172.17.3.9/24", "172.17.0.5/16"), Some(subnet("172.17.3.0/24")));
        assert_eq!(common("172.17.0.5/16", "172.18.0.5/16"), None);
        assert_eq!(common("0.0.0.0/0", "10.1.2.3/32"), Some(subnet("10.1.2.3/32")));
        assert_eq!(common("0.0.0.0/0", "::/0"), None);
        assert_eq!(common("fd00::1/64", "fd00::2/64"), Some(subnet("fd00::/64")));
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_invalid() {
        assert!(subnet("10.0.0.0/32").is_valid());
        assert!(!subnet("10.0.0.0/33").is_valid());
        assert!(subnet("fd00::/128").is_valid());
    }
}
