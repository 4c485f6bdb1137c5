//! The lines between CLI, proxy and agent: one that is read can be written and is then read as
//! the same.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use mirrord_protocol::control::{AgentConfig, AgentEvent, ProxyConfig, ProxyEvent};

fuzz_target!(|data: &[u8]| {
    let Some((kind, line)) = data.split_first() else { return };
    match kind % 4 {
        0 => again(serde_json::from_slice::<ProxyConfig>(line)),
        1 => again(serde_json::from_slice::<ProxyEvent>(line)),
        2 => again(serde_json::from_slice::<AgentConfig>(line)),
        _ => again(serde_json::from_slice::<AgentEvent>(line)),
    }
});

fn again<T: serde::Serialize + serde::de::DeserializeOwned + Debug>(read: serde_json::Result<T>) {
    let Ok(value) = read else { return };
    let line = serde_json::to_string(&value).expect("what was read can be written");
    let same: T = serde_json::from_str(&line).expect("what was written can be read");
    assert_eq!(format!("{same:?}"), format!("{value:?}"));
}
