//! A byte stream that both ends know, so that a lost, doubled or moved byte is seen.

/// A prime, so that no frame or buffer size makes the stream repeat at a boundary.
const PERIOD: usize = 1_048_573;

/// The stream: byte `n` is `block[n % PERIOD]`.
pub struct Pattern {
    /// The period twice, so that every window of up to a period is contiguous.
    block: Vec<u8>,
}

impl Pattern {
    /// Computes it; both ends get the same bytes.
    #[must_use]
    pub fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut block: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect();
        block.extend_from_within(..);
        Self { block }
    }

    /// The `len` bytes at `offset`; `len` is at most a period.
    #[must_use]
    pub fn at(&self, offset: u64, len: usize) -> &[u8] {
        let start = usize::try_from(offset % PERIOD as u64).unwrap_or(0);
        &self.block[start..start + len.min(PERIOD)]
    }

    /// Whether `bytes` are what stands at `offset`.
    #[must_use]
    pub fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        self.at(offset, bytes.len()) == bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_byte_is_seen() {
        let pattern = Pattern::new();
        let bytes = pattern.at(5, 4096).to_vec();
        assert!(pattern.holds(5, &bytes));
        assert!(pattern.holds(5 + PERIOD as u64, &bytes));
        assert!(!pattern.holds(6, &bytes));
        let mut doubled = bytes.clone();
        doubled[100] ^= 1;
        assert!(!pattern.holds(5, &doubled));
    }
}
