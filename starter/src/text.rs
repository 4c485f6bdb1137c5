//! Sentences of limited length, made without an allocator.

use crate::wire::LONGEST_REFUSAL;

/// One line; what does not fit is left out.
pub struct Line {
    bytes: [u8; LONGEST_REFUSAL],
    length: usize,
}

impl Line {
    /// A line that begins so.
    pub fn new(start: &str) -> Self {
        Self { bytes: [0; LONGEST_REFUSAL], length: 0 }.text(start)
    }

    /// Adds words.
    pub fn text(mut self, words: &str) -> Self {
        for byte in words.bytes() {
            self.push(byte);
        }
        self
    }

    /// Adds a number.
    pub fn number(mut self, number: u64) -> Self {
        let mut place = 10_000_000_000_000_000_000;
        while place > 1 && number < place {
            place /= 10;
        }
        while place > 0 {
            // One digit, so it fits.
            self.push(b'0' + (number / place % 10) as u8);
            place /= 10;
        }
        self
    }

    /// Ends the line.
    pub fn end(mut self) -> Self {
        self.length = self.length.min(LONGEST_REFUSAL - 1);
        self.push(b'\n');
        self
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 909, u64::MAX] {
            let line = Line::new("").number(number);
            assert_eq!(line.bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_line_that_is_too_long_still_ends() {
        let line = Line::new(&"x".repeat(500)).end();
        assert_eq!(line.bytes().len(), LONGEST_REFUSAL);
        assert_eq!(line.bytes().last(), Some(&b'\n'));
    }
}
