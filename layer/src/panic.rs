//! Proof that nothing panics: what would be called exists nowhere, so that linking fails.

use core::panic::PanicInfo;

unsafe extern "C" {
    fn something_in_the_layer_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: a library in which this call is left is never linked.
    unsafe { something_in_the_layer_can_panic() }
}
