//! Unix sockets of the target, by their names (unix(7)).
//!
//! This module needs neither a standard library nor an allocator.

/// The most bytes of a name: sun_path.
pub const MAX_UNIX_NAME: usize = 108;

/// A path as it was asked for, or, behind a zero byte, an abstract name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnixName {
    bytes: [u8; MAX_UNIX_NAME],
    len: u8,
}

impl UnixName {
    /// What stands in a sockaddr_un behind the family; `None` if that names no socket.
    pub fn new(name: &[u8]) -> Option<Self> {
        let len = match name.first()? {
            0 => name.len(),
            _ => name.iter().position(|byte| *byte == 0).unwrap_or(name.len()),
        };
        let mut bytes = [0; MAX_UNIX_NAME];
        bytes.get_mut(..len)?.copy_from_slice(name.get(..len)?);
        Some(Self { bytes, len: u8::try_from(len).ok()? })
    }

    /// The bytes; an abstract name's first one is zero.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The name behind the zero byte, if it is abstract.
    pub fn abstract_name(&self) -> Option<&[u8]> {
        self.as_bytes().strip_prefix(&[0])
    }
}

impl core::fmt::Debug for UnixName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.abstract_name() {
            Some(name) => write!(f, "@{}", name.escape_ascii()),
            None => write!(f, "{}", self.as_bytes().escape_ascii()),
        }
    }
}

/// The kinds of unix sockets that are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum UnixKind {
    /// SOCK_STREAM.
    Stream = 1,
    /// SOCK_SEQPACKET: each message is 4 bytes of length, big-endian, and its bytes.
    Packets = 5,
}

impl UnixKind {
    /// The one of this number.
    pub fn of(number: u8) -> Option<Self> {
        [Self::Stream, Self::Packets].into_iter().find(|kind| *kind as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_with_its_zero_and_an_abstract_name_does_not() {
        let name = |bytes: &[u8]| UnixName::new(bytes).map(|name| name.as_bytes().to_vec());
        assert_eq!(name(b"/run/a\0rest"), Some(b"/run/a".to_vec()));
        assert_eq!(name(b"/run/a"), Some(b"/run/a".to_vec()));
        assert_eq!(name(b"\0a\0b"), Some(b"\0a\0b".to_vec()));
        assert_eq!(name(b""), None, "unnamed");
        assert_eq!(name(&[b'x'; MAX_UNIX_NAME]).map(|name| name.len()), Some(MAX_UNIX_NAME));
        assert_eq!(name(&[b'x'; MAX_UNIX_NAME + 1]), None);
        assert_eq!(
            UnixName::new(b"\0a").and_then(|it| it.abstract_name().map(<[u8]>::len)),
            Some(1)
        );
    }
}
