//! `probe`: a client and a server that print exactly what they see, one JSON value a line.
//!
//! ```text
//!  probe WORDS…        one command, or several with "and" between them; a server stays
//!  probe shell         "ID WORDS…" a line on stdin, {"id": ID, …} a line on stdout
//! ```
//!
//! Everything that happens on its own (a connection, a datagram, a signal) is a line with `"event"`.

mod client;
mod line;
mod load;
mod pattern;
mod relay;
mod server;
mod shell;
mod system;
mod udp;

use std::process::ExitCode;

pub use line::{Line, Reply};

/// Runs the words of the command line.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("shell") => shell::run(),
        Some("relay") => relay::run(&words[1..]),
        _ => shell::once(&words),
    }
}
