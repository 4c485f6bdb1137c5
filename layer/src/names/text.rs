//! Which names are the process's own concern: those of this machine, and addresses as text.

/// Whether a name means this host wherever it is asked for (RFC 6761, section 6.3).
pub fn is_localhost(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let label = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    label.eq_ignore_ascii_case(b"localhost")
}

/// Whether it is an address rather than a name: whatever inet_aton(3) takes, and all that has a
/// colon, as IPv6 addresses do and names do not.
pub fn is_address(name: &[u8]) -> bool {
    name.contains(&b':') || is_v4(name)
}

/// One to four numbers; the last one fills what is left of 32 bits.
fn is_v4(name: &[u8]) -> bool {
    let (mut parts, mut last) = (0u32, 0);
    for part in name.split(|byte| *byte == b'.') {
        let Some(value) = number(part) else { return false };
        if parts > 3 || (parts > 0 && last > 0xff) {
            return false;
        }
        parts += 1;
        last = value;
    }
    let bits = 40u32.saturating_sub(parts.saturating_mul(8));
    parts > 0 && last >> bits.min(63) == 0
}

/// A number as C writes it: decimal, octal behind 0, hexadecimal behind 0x.
fn number(text: &[u8]) -> Option<u64> {
    let (base, digits) = match text {
        [b'0', b'x' | b'X', digits @ ..] => (16, digits),
        [b'0', digits @ ..] if !digits.is_empty() => (8, digits),
        digits => (10, digits),
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(base);
    let add = |value: u64, byte| {
        Some(value.saturating_mul(base.into()).saturating_add(digit(byte)?.into()))
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// A name without the dot that ends it, and whether there was one.
pub fn rooted(name: &[u8]) -> (&[u8], bool) {
    name.strip_suffix(b".").map_or((name, false), |name| (name, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_one_label_in_any_case() {
        for name in ["localhost", "LOCALHOST.", "a.b.localhost", "x.localhost."] {
            assert!(is_localhost(name.as_bytes()), "{name}");
        }
        for name in ["", ".", "localhosts", "localhost.example", "alocalhost"] {
            assert!(!is_localhost(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn addresses_are_what_the_c_library_takes_for_them() {
        for name in [
            "1.2.3.4",
            "127.1",
            "10.0x10.017",
            "0",
            "4294967295",
            "0x7f000001",
            "255.255.255.255",
            "1.16777215",
            "::1",
            "fe80::1%eth0",
            "::ffff:1.2.3.4",
        ] {
            assert!(is_address(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "a",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3.256",
            "1.2.3.4.",
            "4294967296",
            "0x",
            "08",
            "1..2",
            "1.16777216",
            "db",
            "0xg",
            "1.2.3.4 ",
            "99999999999999999999",
        ] {
            assert!(!is_address(name.as_bytes()), "{name}");
        }
    }

    unsafe extern "C" {
        fn inet_aton(text: *const libc::c_char, place: *mut u32) -> libc::c_int;
    }

    proptest::proptest! {
        #[test]
        fn numbers_are_addresses_where_they_are_for_the_c_library(
            text in "(0|0x|)[0-9a-f]{0,11}(\\.(0|0x|)[0-9a-f]{0,8}){0,4}"
        ) {
            let name = std::ffi::CString::new(text.clone()).expect("no NUL");
            // SAFETY: a string, and room for an address.
            let taken = unsafe { inet_aton(name.as_ptr(), &mut 0) } == 1;
            proptest::prop_assert_eq!(is_address(text.as_bytes()), taken, "{}", text);
        }
    }

    #[test]
    fn a_name_may_end_at_the_root() {
        assert_eq!(rooted(b"a.b."), (&b"a.b"[..], true));
        assert_eq!(rooted(b"a.b"), (&b"a.b"[..], false));
    }
}
