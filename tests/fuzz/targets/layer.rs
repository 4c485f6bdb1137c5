//! What a process asks of the proxy and is answered, and the memory that they share.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mirrord_protocol::layer::{
    ADDRESS_LEN, REPLY_LEN, REQUEST_LEN, Reply, Request, decode_address, encode_address,
};
use mirrord_protocol::unix::UnixName;

fuzz_target!(|data: &[u8]| {
    let mut request = [0; REQUEST_LEN];
    request.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    if let Ok((key, asked)) = Request::decode(&request) {
        assert_eq!(Request::decode(&asked.encode(&key)), Ok((key, asked)));
    }
    if let Some(Ok(reply)) = data.first_chunk::<REPLY_LEN>().map(Reply::decode) {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
    if let Some(address) = data.first_chunk::<ADDRESS_LEN>().and_then(decode_address) {
        assert_eq!(decode_address(&encode_address(Some(address))), Some(address));
    }
    if let Some(name) = UnixName::new(data) {
        assert_eq!(UnixName::new(name.as_bytes()), Some(name));
    }
});
