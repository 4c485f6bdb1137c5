//! The starter's executable; all of it is in the library.

#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::panic::PanicInfo;

use mirrord_starter::{exit, wire};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(wire::FAILED)
}
