//! The sidecar's processes without the command line around them, for tests.

use std::path::Path;
use std::process::ExitCode;

use mirrord_protocol::control::SHARED_FOLDER;
use mirrord_proxy::PipeHeader;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["proxy"] => mirrord_proxy::run(),
        ["proxy", "--worker"] => mirrord_proxy::run_worker(static_layer()),
        ["proxy", "--pipe", index, ref rest @ ..] => match (index.parse(), options(rest)) {
            (Ok(index), Some((container, folder))) => {
                let header = PipeHeader { target: index, container, direct: false };
                mirrord_proxy::run_pipe(&header, Path::new(folder))
            }
            _ => ExitCode::from(2),
        },
        _ => ExitCode::from(2),
    }
}

/// What static programs are given; it is built elsewhere.
fn static_layer() -> &'static [u8] {
    let file = std::env::var_os("MIRRORD_LAYER_BLOB").map(std::fs::read);
    file.and_then(Result::ok).unwrap_or_default().leak()
}

fn options<'a>(words: &[&'a str]) -> Option<(Option<String>, &'a str)> {
    let (mut container, mut folder) = (None, SHARED_FOLDER);
    for pair in words.chunks(2) {
        match *pair {
            ["--container", id] => container = Some(id.to_owned()),
            ["--folder", path] => folder = path,
            _ => return None,
        }
    }
    Some((container, folder))
}
