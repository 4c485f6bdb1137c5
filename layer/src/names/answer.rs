//! What the proxy answers to [`Request::Resolve`](mirrord_protocol::layer::Request::Resolve).

use core::net::IpAddr;

use mirrord_protocol::layer::{ADDRESS_LEN, MAX_NAME, decode_address};

/// A name's addresses, in their order.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    addresses: &'a [[u8; ADDRESS_LEN]],
    canonical: &'a [u8],
}

impl<'a> Answer<'a> {
    /// `None` if it is cut short.
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let (count, rest) = payload.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes(*count)).wrapping_mul(ADDRESS_LEN);
        let (addresses, canonical) = rest.split_at_checked(len)?;
        let fits = canonical.len() <= MAX_NAME && !canonical.contains(&0);
        fits.then_some(Self { addresses: addresses.as_chunks().0, canonical })
    }

    /// In the target's order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + Clone + use<'a> {
        self.addresses.iter().filter_map(|bytes| Some(decode_address(bytes)?.ip()))
    }

    /// The canonical name; the name that was asked for if the proxy gave none.
    pub fn canonical(&self, asked: &'a [u8]) -> &'a [u8] {
        if self.canonical.is_empty() { asked } else { self.canonical }
    }
}

#[cfg(test)]
pub mod tests {
    use std::net::SocketAddr;

    use mirrord_protocol::layer::encode_address;

    use super::*;

    /// As the proxy encodes it.
    pub fn payload(addresses: &[&str], canonical: &str) -> Vec<u8> {
        let mut bytes = (addresses.len() as u16).to_le_bytes().to_vec();
        for ip in addresses {
            let address = SocketAddr::new(ip.parse().expect("an address"), 0);
            bytes.extend(encode_address(Some(address)));
        }
        bytes.extend(canonical.as_bytes());
        bytes
    }

    #[test]
    fn addresses_and_name_are_read() {
        let bytes = payload(&["10.0.0.1", "2001:db8::1"], "db.example");
        let answer = Answer::decode(&bytes).expect("an answer");
        let addresses: Vec<_> = answer.addresses().map(|ip| ip.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1", "2001:db8::1"]);
        assert_eq!(answer.canonical(b"db"), b"db.example");
        let bytes = payload(&[], "");
        let answer = Answer::decode(&bytes).expect("an answer");
        assert_eq!((answer.addresses().count(), answer.canonical(b"db")), (0, &b"db"[..]));
    }

    proptest::proptest! {
        #[test]
        fn no_payload_is_too_odd(bytes: Vec<u8>, count in 0..4u8) {
            let bytes = [&[count, 0], &bytes[..]].concat();
            if let Some(answer) = Answer::decode(&bytes) {
                proptest::prop_assert!(answer.addresses().count() <= usize::from(count));
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_no_answer() {
        let bytes = payload(&["10.0.0.1"], "");
        for len in 0..bytes.len() {
            assert!(Answer::decode(&bytes[..len]).is_none(), "{len} bytes");
        }
        assert!(Answer::decode(&payload(&[], &"a".repeat(254))).is_none());
        assert!(Answer::decode(&payload(&[], "a\0b")).is_none());
    }
}
