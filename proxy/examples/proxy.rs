//! The sidecar's processes without the command line around them, for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["proxy"] => mirrord_proxy::run(),
        ["proxy", "--worker"] => mirrord_proxy::run_worker(),
        ["proxy", "--pipe", index, ref rest @ ..] => match (index.parse(), rest) {
            (Ok(index), []) => mirrord_proxy::run_pipe(index, None),
            (Ok(index), ["--container", id]) => {
                mirrord_proxy::run_pipe(index, Some((*id).to_owned()))
            }
            _ => ExitCode::from(2),
        },
        _ => ExitCode::from(2),
    }
}
