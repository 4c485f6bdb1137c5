//! What the target's name servers answer the proxy, and the target's resolv.conf.

#![no_main]
#![allow(dead_code, reason = "modules of the proxy's own, of which a part is called")]

use libfuzzer_sys::fuzz_target;

#[path = "../../../proxy/src/layer/resolve/conf.rs"]
mod conf;
#[path = "../../../proxy/src/layer/resolve/message.rs"]
mod message;

fuzz_target!(|data: &[u8]| {
    let question = message::Question::new("a.example", message::A, message::IN);
    let answer = message::Answer { bytes: data.to_vec().into() };
    let _ = question.is_some_and(|question| question.is_answered_by(&answer));
    let _ = (answer.is_truncated(), answer.is_no_help(), answer.cause());
    let _ = answer.addresses("a.example");
    if let Ok(text) = std::str::from_utf8(data) {
        let conf = conf::Conf::parse(text, "host.example");
        assert!(conf.servers.len() <= 3 && conf.attempts <= 5);
    }
});
