//! What the proxy says to the CLI.

use std::io::Write;

use mirrord_protocol::control::ProxyEvent;

/// Says one event. Once the CLI is gone nobody listens, and that is no failure.
pub(crate) fn say(event: &ProxyEvent) {
    if let Ok(mut line) = serde_json::to_string(event) {
        line.push('\n');
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
    }
}

/// Says why the proxy leaves.
pub(crate) fn failed(error: &anyhow::Error) {
    say(&ProxyEvent::Failed { causes: error.chain().map(ToString::to_string).collect() });
}
