//! The first thing that runs: before the program, and before any thread of it.

use crate::interpose::names::is_glibc;
use crate::{engine, settings::settings};

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    if settings().is_some() {
        engine::install();
        let _ = is_glibc();
    }
}
