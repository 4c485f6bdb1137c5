//! What the environment says about the proxy: read once, and kept, for a program may write over its
//! environment.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering};

use mirrord_protocol::layer::{KEY_LEN, LAYER_FILE, LAYER_VARIABLE};

use crate::engine::is_quiet;

/// The longest name of an abstract unix socket (unix(7)).
const LONGEST_NAME: usize = 107;
/// The longest path of the library that is kept.
const LONGEST_PATH: usize = 1024;

/// A few bytes.
#[derive(Clone, Copy)]
struct Text<const ROOM: usize> {
    bytes: [u8; ROOM],
    len: usize,
}

impl<const ROOM: usize> Text<ROOM> {
    const EMPTY: Self = Self { bytes: [0; ROOM], len: 0 };

    fn new(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; ROOM];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self { bytes, len: text.len() })
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Where the proxy is, and how it is spoken to.
pub struct Settings {
    variable: Text<{ LONGEST_NAME + 1 + 2 * KEY_LEN }>,
    name_len: usize,
    key: [u8; KEY_LEN],
    library: Text<LONGEST_PATH>,
}

impl Settings {
    const NONE: Self =
        Self { variable: Text::EMPTY, name_len: 0, key: [0; KEY_LEN], library: Text::EMPTY };

    /// Sets what an entry of the environment says.
    fn take(&mut self, entry: &[u8]) {
        let Some(at) = entry.iter().position(|byte| *byte == b'=') else { return };
        let Some((name, value)) = entry.split_at_checked(at) else { return };
        let Some((_, value)) = value.split_first() else { return };
        if name == LAYER_VARIABLE.as_bytes() {
            self.take_variable(value);
        } else if name == b"LD_PRELOAD" {
            let ours = value.split(|byte| matches!(byte, b':' | b' ')).find(|path| is_ours(path));
            self.library = ours.and_then(Text::new).unwrap_or(Text::EMPTY);
        }
    }

    fn take_variable(&mut self, value: &[u8]) {
        let mut parts = value.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let key = match parts.next() {
            None => Some([0; KEY_LEN]),
            Some(digits) => from_hexadecimal(digits),
        };
        let (Some(key), Some(variable)) = (key, Text::new(value)) else { return };
        if !name.is_empty() && name.len() <= LONGEST_NAME {
            (self.variable, self.name_len, self.key) = (variable, name.len(), key);
        }
    }

    fn is_some(&self) -> bool {
        self.name_len > 0
    }

    /// The value of the variable, to be handed on.
    pub fn variable(&self) -> &[u8] {
        self.variable.as_bytes()
    }

    /// The path of our library as LD_PRELOAD had it; empty if it did not.
    pub fn library(&self) -> &[u8] {
        self.library.as_bytes()
    }

    /// The name of the abstract unix socket.
    pub fn name(&self) -> &[u8] {
        self.variable().get(..self.name_len).unwrap_or_default()
    }

    /// What every request shows.
    pub fn key(&self) -> &[u8; KEY_LEN] {
        &self.key
    }
}

fn is_ours(path: &[u8]) -> bool {
    path.rsplit(|byte| *byte == b'/').next() == Some(LAYER_FILE.as_bytes())
}

fn from_hexadecimal(digits: &[u8]) -> Option<[u8; KEY_LEN]> {
    if digits.len() != 2 * KEY_LEN {
        return None;
    }
    let mut key = [0; KEY_LEN];
    for (byte, pair) in key.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(key)
}

struct Kept(UnsafeCell<Settings>);

// SAFETY: it is written by who changes STATE from UNKNOWN, and read by those who see it READY.
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept(UnsafeCell::new(Settings::NONE));
static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const WRITING: u8 = 1;
const READY: u8 = 2;
const ABSENT: u8 = 3;

/// What the environment says, if it says so; while another thread reads it for the first time,
/// nothing, and nothing to the C library at work for a hook.
pub fn settings() -> Option<&'static Settings> {
    if is_quiet() {
        return None;
    }
    let mut state = STATE.load(Ordering::Acquire);
    if state == UNKNOWN {
        state = decide();
    }
    // SAFETY: what is ready is not written again.
    (state == READY).then(|| unsafe { &*KEPT.0.get() })
}

#[cold]
fn decide() -> u8 {
    if !source::is_there() {
        return UNKNOWN;
    }
    let (acquire, failed) = (Ordering::Acquire, Ordering::Acquire);
    if let Err(state) = STATE.compare_exchange(UNKNOWN, WRITING, acquire, failed) {
        return state;
    }
    // SAFETY: nobody else gets here, and nobody reads before READY.
    let settings = unsafe { &mut *KEPT.0.get() };
    source::for_each(|entry| settings.take(entry));
    let state = if settings.is_some() { READY } else { ABSENT };
    STATE.store(state, Ordering::Release);
    state
}

/// The environment as libc has it.
#[cfg(all(feature = "preload", not(test)))]
mod source {
    use core::ffi::{CStr, c_char};

    unsafe extern "C" {
        static environ: *const *const c_char;
    }

    pub fn is_there() -> bool {
        // SAFETY: a pointer that libc sets before it runs any of the program.
        unsafe { !environ.is_null() }
    }

    pub fn for_each(mut take: impl FnMut(&[u8])) {
        // SAFETY: a list of strings that ends with null.
        unsafe {
            let mut entry = environ;
            while !entry.is_null() && !(*entry).is_null() {
                take(CStr::from_ptr(*entry).to_bytes());
                entry = entry.add(1);
            }
        }
    }
}

/// The environment as the process was given it.
#[cfg(not(all(feature = "preload", not(test))))]
mod source {
    use super::{LONGEST_PATH, Text};
    use crate::sys;

    pub fn is_there() -> bool {
        true
    }

    pub fn for_each(mut take: impl FnMut(&[u8])) {
        let Ok(file) = sys::open(c"/proc/self/environ") else { return };
        let mut chunk = [0; 512];
        let mut entry = Text::<{ LONGEST_PATH + 64 }>::EMPTY;
        while let Ok(len @ 1..) = sys::read(&file, &mut chunk) {
            for byte in chunk.get(..len).unwrap_or_default() {
                if *byte == 0 {
                    take(entry.as_bytes());
                    entry.len = 0;
                } else if let Some(place) = entry.bytes.get_mut(entry.len) {
                    *place = *byte;
                    entry.len += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[&str]) -> Settings {
        let mut settings = Settings::NONE;
        entries.iter().for_each(|entry| settings.take(entry.as_bytes()));
        settings
    }

    #[test]
    fn the_variable_is_a_name_and_perhaps_a_key() {
        let settings = of(&["A=b", "MIRRORD_LAYER=mirrord-1", "LD_PRELOAD=/x/libmirrord_layer.so"]);
        assert_eq!(settings.name(), b"mirrord-1");
        assert_eq!(settings.key(), &[0; KEY_LEN]);
        assert_eq!(settings.library(), b"/x/libmirrord_layer.so");
        let settings = of(&["MIRRORD_LAYER=n:000102030405060708090a0b0c0d0e0F"]);
        assert_eq!(settings.name(), b"n");
        assert_eq!(settings.key(), &core::array::from_fn(|at| at as u8));
        assert_eq!(settings.variable(), b"n:000102030405060708090a0b0c0d0e0F");
    }

    #[test]
    fn what_cannot_be_meant_is_no_layer() {
        for value in ["", ":", "n:12", "n:zz0102030405060708090a0b0c0d0e0f", &"x".repeat(108)] {
            assert!(!of(&[&format!("MIRRORD_LAYER={value}")]).is_some(), "{value}");
        }
        assert!(!of(&["MIRRORD_LAYE=x", "MIRRORD_LAYER"]).is_some());
    }

    #[test]
    fn our_library_is_found_among_others() {
        let settings = of(&["LD_PRELOAD=/a/libx.so /b/libmirrord_layer.so:/c/liby.so"]);
        assert_eq!(settings.library(), b"/b/libmirrord_layer.so");
        assert_eq!(of(&["LD_PRELOAD=/b/libmirrord_layer.so.1"]).library(), b"");
    }
}
