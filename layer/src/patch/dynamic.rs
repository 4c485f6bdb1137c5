//! The names that an executable offers to libraries: its GNU hash table.

use super::bytes::{long, says, word};
use super::image::Image;

const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_GNU_HASH: usize = 0x6fff_fef5;
/// Bytes of a symbol.
const SYMBOL: usize = 24;
/// Most of one hash value that are looked at.
const MOST: usize = 1 << 12;

/// The tables of names.
pub struct Dynamic {
    hashes: &'static [u8],
    symbols: &'static [u8],
    names: &'static [u8],
}

impl Dynamic {
    /// Those of the executable.
    pub fn of(image: &Image) -> Option<Self> {
        let entries = image.dynamic()?;
        let table = |wanted| {
            let (entries, _) = entries.as_chunks::<16>();
            let entry = entries.iter().find(|entry| long(*entry, 0) == Some(wanted))?;
            image.rest_of_either(long(entry, 8)?)
        };
        Some(Self {
            hashes: table(DT_GNU_HASH)?,
            symbols: table(DT_SYMTAB)?,
            names: table(DT_STRTAB)?,
        })
    }

    /// The address that the file has for a name, if it is among them.
    pub fn address(&self, name: &[u8]) -> Option<usize> {
        long(self.symbols, self.find(name)?.checked_mul(SYMBOL)?.checked_add(8)?)
    }

    /// The number of a symbol. Header: buckets, first symbol, bloom words, shift; then those words
    /// of 8 bytes, the buckets, and the chains, all of 4 bytes.
    fn find(&self, name: &[u8]) -> Option<usize> {
        let number = |at: usize| word(self.hashes, at.checked_mul(4)?).map(|value| value as usize);
        let (buckets, first, blooms) = (number(0)?, number(1)?, number(2)?);
        let wanted = hash(name);
        let table = blooms.checked_mul(2)?.checked_add(4)?;
        let bucket = (wanted as usize).checked_rem(buckets)?;
        let begin = number(table.checked_add(bucket)?)?;
        let chains = table.checked_add(buckets)?;
        for symbol in (begin.max(first)..).take(MOST) {
            if begin == 0 {
                return None;
            }
            let found = number(chains.checked_add(symbol.checked_sub(first)?)?)?;
            if found | 1 == wanted as usize | 1 && self.is_named(symbol, name) {
                return Some(symbol);
            }
            if found & 1 != 0 {
                return None;
            }
        }
        None
    }

    fn is_named(&self, symbol: usize, name: &[u8]) -> bool {
        let at = symbol.checked_mul(SYMBOL).and_then(|at| word(self.symbols, at));
        at.is_some_and(|at| says(self.names, at as usize, name))
    }
}

fn hash(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_format() {
        assert_eq!(hash(b""), 0x1505);
        assert_eq!(hash(b"printf"), 0x156b_2bb8);
    }

    #[test]
    fn tables_that_are_cut_off_have_no_names() {
        for len in 0..64 {
            let hashes = vec![1; len].leak();
            let dynamic = Dynamic { hashes, symbols: &[0; 100], names: b"\0uv_accept\0" };
            assert_eq!(dynamic.address(b"uv_accept"), None);
        }
    }
}
