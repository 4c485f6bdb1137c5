//! The preload library, which the executable carries; `build.rs` builds it.

/// Its bytes.
pub const LAYER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libmirrord_layer.so"));

/// The same for static Go programs, which the proxy puts it into; empty on a machine on which it
/// cannot be.
pub const STATIC_LAYER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/layer-blob"));
