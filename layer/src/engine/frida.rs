//! The lines that call Gum.

use core::ffi::c_void;
use core::mem::ManuallyDrop;

use frida_gum::interceptor::Interceptor;
use frida_gum::{Gum, NativePointer};

use super::Engine;

/// Gum's interceptor in a transaction, which ends with this. The interceptor itself stays: without
/// it all would be as before.
pub struct Frida(ManuallyDrop<Interceptor>);

impl Frida {
    /// Begins.
    pub fn begin() -> Self {
        let mut interceptor = ManuallyDrop::new(Interceptor::obtain(&Gum::obtain()));
        interceptor.begin_transaction();
        Self(interceptor)
    }
}

impl Drop for Frida {
    fn drop(&mut self) {
        self.0.end_transaction();
    }
}

impl Engine for Frida {
    /// Gum finds out by itself how long a function is. Its other way to replace one keeps a stack
    /// of calls, which a child that shares its parent's memory (vfork(2)) would spoil.
    fn replace(&mut self, function: usize, _: usize, with: usize) -> Option<usize> {
        let pointer = |place: usize| NativePointer(place as *mut c_void);
        let before = self.0.replace_fast(pointer(function), pointer(with)).ok()?;
        Some(before.0 as usize)
    }
}
