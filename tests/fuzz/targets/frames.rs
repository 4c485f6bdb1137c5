//! What the other end of a tunnel sends: a frame that is read is written as it was.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mirrord_protocol::frame::{Frame, MAX_FRAME};

fuzz_target!(|data: &[u8]| {
    let Ok(frame) = Frame::decode(Bytes::copy_from_slice(data)) else { return };
    let encoded = frame.encode();
    assert!(encoded.len() <= MAX_FRAME);
    assert_eq!(Frame::decode(encoded), Ok(frame));
});
