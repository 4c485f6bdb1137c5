//! Standard output, which is data.

use std::io::{self, Write};

use crate::failure::Failure;

/// Writes data. A reader that has read enough is no failure.
pub fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|error| Failure::caused_by("cannot write to standard output", &error))
        }
    }
}
