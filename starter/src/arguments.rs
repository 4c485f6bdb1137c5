//! `starter PORT SHA256(token) SHA256(program) SECONDS`: hashes, since a pod's arguments are public.

use crate::digest::Expected;

/// What the starter is told.
pub struct Arguments {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// The digest of the token that opens it.
    pub token: Expected,
    /// The digest of the program that it becomes.
    pub program: Expected,
    /// How long it waits for the program, in milliseconds.
    pub patience_ms: u64,
}

impl Arguments {
    /// Reads the four words behind the program's name.
    pub fn read<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let arguments = Self {
            port: words.next().and_then(number)?.try_into().ok()?,
            token: words.next().and_then(Expected::from_hex)?,
            program: words.next().and_then(Expected::from_hex)?,
            patience_ms: words.next().and_then(number)?.checked_mul(1_000)?,
        };
        words.next().is_none().then_some(arguments)
    }
}

fn number(word: &[u8]) -> Option<u64> {
    core::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Arguments> {
        Arguments::read(line.split(' ').map(str::as_bytes))
    }

    #[test]
    fn four_words_are_read() {
        let digest = "0".repeat(64);
        let arguments = read(&format!("8080 {digest} {digest} 60")).expect("arguments");
        assert_eq!((arguments.port, arguments.patience_ms), (8080, 60_000));
    }

    #[test]
    fn anything_else_is_refused() {
        let digest = "0".repeat(64);
        for line in [
            String::new(),
            format!("80 {digest} {digest}"),
            format!("80 {digest} {digest} 60 more"),
            format!("70000 {digest} {digest} 60"),
            format!("80 {digest} {digest} -1"),
            format!("80 {digest} {digest} {}", u64::MAX),
            format!("80 {digest} abc 60"),
        ] {
            assert!(read(&line).is_none(), "{line}");
        }
    }
}
