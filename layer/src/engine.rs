//! What puts functions of ours in the place of others, in memory, before the program runs.

/// Who does it.
pub trait Engine {
    /// Makes a function, of so many bytes, go on at another one. Says where it can be called as it
    /// was, if it was replaced and something is left of it.
    fn replace(&mut self, function: usize, len: usize, with: usize) -> Option<usize>;
}

#[cfg(all(feature = "frida", not(test)))]
mod frida;
#[cfg(all(feature = "frida", not(test)))]
mod quiet;

#[cfg(all(feature = "frida", not(test)))]
pub use quiet::{Quiet, is_quiet};

/// Replaces libc's functions and the executable's own.
#[cfg(all(feature = "frida", not(test)))]
pub fn install() {
    let mut gum = frida::Frida::begin();
    crate::table::replace(&mut gum);
    crate::patch::install(&mut gum);
}

/// Replaces the executable's own functions; libc's are hooked by their symbols.
#[cfg(all(feature = "preload", not(feature = "frida"), not(test)))]
pub fn install() {
    crate::patch::install(&mut crate::patch::Jumps);
}

/// Stands for the C library at work for a hook: where hooks are symbols, what it calls is not hooked.
#[cfg(not(all(feature = "frida", not(test))))]
pub struct Quiet;

#[cfg(not(all(feature = "frida", not(test))))]
impl Quiet {
    /// Begins.
    pub fn begin() -> Self {
        Self
    }
}

/// Whether the calling thread is at work for a hook.
#[cfg(not(all(feature = "frida", not(test))))]
pub fn is_quiet() -> bool {
    false
}
