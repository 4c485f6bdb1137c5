//! What comes to the socket where pipes are handed over, with and without descriptors. What is
//! taken can be handed on.

#![no_main]

use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use libfuzzer_sys::fuzz_target;
use mirrord_tunnel::handover::{receive, send};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::net::UnixStream;

#[path = "shared/runtime.rs"]
mod runtime;

fuzz_target!(|data: &[u8]| {
    let Some(([descriptors, first], said)) = data.split_first_chunk() else { return };
    let (mut near, far) = StdUnixStream::pair().expect("a pair");
    let (first, rest) = said.split_at(usize::from(*first).min(said.len()));
    bring(&near, first, usize::from(descriptors % 4));
    near.write_all(rest).expect("room");
    drop(near);
    runtime::run(async {
        far.set_nonblocking(true).expect("a socket");
        let far = UnixStream::from_std(far).expect("a socket");
        let Ok(taken) = receive(&far).await else { return };
        let (again, _other) = StdUnixStream::pair().expect("a pair");
        let (reader, writer) = (taken.reader.as_fd(), taken.writer.as_fd());
        send(&again, &taken.header, reader, writer).expect("what was taken can be sent");
    });
});

fn bring(to: &StdUnixStream, bytes: &[u8], count: usize) {
    let null = File::open("/dev/null").expect("/dev/null");
    let descriptors = vec![null.as_fd(); count];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if count > 0 {
        rights.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    sendmsg(to, &[IoSlice::new(bytes)], &mut rights, SendFlags::empty()).expect("room");
}
