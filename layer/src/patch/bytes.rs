//! Numbers in bytes, little-endian, of which any may be missing.

/// 2 bytes.
pub fn short(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// 4 bytes.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// 8 bytes.
pub fn long(bytes: &[u8], at: usize) -> Option<usize> {
    array(bytes, at).map(usize::from_le_bytes)
}

/// Whether a NUL-terminated string stands there.
pub fn says(bytes: &[u8], at: usize, text: &[u8]) -> bool {
    let rest = bytes.get(at..).and_then(|rest| rest.strip_prefix(text));
    rest.and_then(<[u8]>::first) == Some(&0)
}

/// Whether a NUL-terminated string that stands there ends so; it is looked at as far as 64 bytes.
pub fn ends(bytes: &[u8], at: usize, text: &[u8]) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    let len = rest.iter().take(64).position(|byte| *byte == 0);
    len.and_then(|len| rest.get(..len)).is_some_and(|name| name.ends_with(text))
}

fn array<const LEN: usize>(bytes: &[u8], at: usize) -> Option<[u8; LEN]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_none() {
        let bytes = *b"\x01\x02\x03\x04\x05\x06\x07\x08name.x\0";
        assert_eq!(short(&bytes, 0), Some(0x0201));
        assert_eq!(word(&bytes, 4), Some(0x0807_0605));
        assert_eq!(long(&bytes, 0), Some(0x0807_0605_0403_0201));
        assert_eq!(long(&bytes, 8), None);
        assert_eq!(word(&bytes, usize::MAX), None);
        assert!(says(&bytes, 8, b"name.x") && !says(&bytes, 8, b"name"));
        assert!(ends(&bytes, 8, b".x") && !ends(&bytes, 8, b"name"));
    }
}
