//! SHA-256, as the arguments carry it.

use sha2::{Digest as _, Sha256};

/// The digest that something must have.
#[derive(Clone, Copy)]
pub struct Expected([u8; 32]);

impl Expected {
    /// From 64 hexadecimal digits.
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                // Below 16, so it fits.
                *byte = (*byte << 4) | char::from(*digit).to_digit(16)? as u8;
            }
        }
        Some(Self(bytes))
    }

    /// Whether what was hashed is what was expected; takes the same time whatever differs.
    pub fn is(&self, hashed: Hasher) -> bool {
        let found: [u8; 32] = hashed.0.finalize().into();
        let difference = self.0.iter().zip(found).fold(0, |sum, (a, b)| sum | (a ^ b));
        core::hint::black_box(difference) == 0
    }
}

/// A digest in the making.
pub struct Hasher(Sha256);

impl Hasher {
    /// Of nothing so far.
    pub fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of these bytes alone.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Self::new();
        hasher.add(bytes);
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &[u8] = b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_is_of_one_thing_alone() {
        let expected = Expected::from_hex(OF_ABC).expect("digits");
        assert!(expected.is(Hasher::of(b"abc")));
        assert!(!expected.is(Hasher::of(b"abd")));
    }

    #[test]
    fn what_is_not_64_digits_is_no_digest() {
        assert!(Expected::from_hex(b"").is_none());
        assert!(Expected::from_hex(&OF_ABC[1..]).is_none());
        let mut damaged = OF_ABC.to_vec();
        damaged[5] = b'g';
        assert!(Expected::from_hex(&damaged).is_none());
    }
}
