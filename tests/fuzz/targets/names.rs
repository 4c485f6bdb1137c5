//! What a name server or the proxy answers to the preload library, and what a resolver in the app
//! asks.

#![no_main]
#![allow(dead_code, reason = "modules of the library's own, of which a part is called")]

use libfuzzer_sys::fuzz_target;
use mirrord_layer::names::HostError;
use mirrord_protocol::layer::MAX_NAME;

#[path = "../../../layer/src/names/answer.rs"]
mod answer;
#[path = "../../../layer/src/names/message.rs"]
mod message;
#[path = "../../../layer/src/names/text.rs"]
mod text;

use answer::Answer;
use message::{HEADER, Question, mark_cut, pointer, verdict, write_no};

fuzz_target!(|data: &[u8]| {
    let _ = verdict(data);
    let _ = pointer(data, &mut [0; MAX_NAME]);
    let _ = text::is_address(data) || text::is_localhost(data);
    mark_cut(&mut data.to_vec());
    if let Some(question) = Question::parse(data) {
        let mut answer = [0; HEADER + MAX_NAME + 6];
        let len = write_no(&question, HostError::NotFound, &mut answer);
        let repeated = answer[..len].first_chunk::<2>();
        assert_eq!(repeated, Some(&question.id));
        assert_eq!(verdict(&answer[..len]), Err(HostError::NotFound));
    }
    if let Some(answer) = Answer::decode(data) {
        assert!(answer.addresses().count() <= data.len());
        assert!(answer.canonical(b"asked").len() <= MAX_NAME);
    }
});
