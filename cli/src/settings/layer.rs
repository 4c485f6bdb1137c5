//! What is asked for of the preload library.

use regex::RegexSet;

use crate::args::Options;
use crate::config::{self, Config, Node};
use crate::failure::Failure;
use crate::session::plane::LayerWishes;

const LISTEN_PORTS: &str = "feature.network.incoming.listen_ports";
const UNIX_STREAMS: &str = "feature.network.outgoing.unix_streams";

/// Programs that build others: what they fetch and where they listen is no business of a target's.
const BUILD_TOOLS: &[&str] = &[
    "ar",
    "as",
    "asm",
    "c++",
    "cargo",
    "cc",
    "cc1",
    "cc1plus",
    "cgo",
    "clang",
    "clang++",
    "cmake",
    "collect2",
    "compile",
    "cpp",
    "g++",
    "gcc",
    "git",
    "git-remote-https",
    "gmake",
    "go",
    "ld",
    "ld.bfd",
    "ld.gold",
    "ld.lld",
    "ldconfig",
    "link",
    "lld",
    "make",
    "meson",
    "mold",
    "ninja",
    "objcopy",
    "protoc",
    "ranlib",
    "rustc",
    "rustup",
    "strip",
    "tar",
];

/// What the options and the configuration file say.
pub fn wishes(options: &Options, config: &Config) -> Result<LayerWishes, Failure> {
    let list = |key: &str| -> Vec<String> {
        let words = config.words(key).unwrap_or_default();
        words.split(';').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut skipped = match options.skip_processes.as_slice() {
        [] => list("skip_processes"),
        given => given.to_vec(),
    };
    let build_tools =
        options.skip_build_tools.or_else(|| config.flag("skip_build_tools")).unwrap_or(true);
    if build_tools {
        skipped.extend(BUILD_TOOLS.iter().map(|name| (*name).to_owned()));
        skipped.extend(list("skip_extra_build_tools"));
    }
    skipped.sort_unstable();
    skipped.dedup();
    let pairs = config.get(LISTEN_PORTS).map(Node::items).unwrap_or_default();
    let listen_ports: Vec<(u16, u16)> = pairs.iter().filter_map(config::pair).collect();
    let mut asked: Vec<u16> = listen_ports.iter().map(|(port, _)| *port).collect();
    asked.sort_unstable();
    if let Some(twice) = asked.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("the port {} is there twice", twice[0]);
        let hint = Some("one port of the app has one port that stands for it".to_owned());
        return Err(config.wrong(LISTEN_PORTS, message, hint).into());
    }
    Ok(LayerWishes { skipped, listen_ports, unix_streams: unix_streams(options, config)? })
}

/// Each of them a regular expression.
fn unix_streams(options: &Options, config: &Config) -> Result<Vec<String>, Failure> {
    let off = |key: &str| config.flag(key) == Some(false);
    let found = config.get(UNIX_STREAMS).filter(|node| !node.is_null());
    let (Some(node), false) = (found, options.no_outgoing) else { return Ok(Vec::new()) };
    if off("feature.network") || off("feature.network.outgoing") {
        return Ok(Vec::new());
    }
    let text = |node: &Node| node.text().map(str::to_owned);
    let given: Vec<String> = match text(node) {
        Some(one) => vec![one],
        None => node.items().iter().filter_map(text).collect(),
    };
    if let Err(error) = RegexSet::new(&given) {
        let message = format!("no regular expression: {}", error.to_string().replace('\n', " "));
        let hint = "it is found anywhere in the name unless ^ and $ are there; what looks ahead or \
                    behind (?=, ?<=) is not known";
        return Err(config.wrong(UNIX_STREAMS, message, Some(hint.to_owned())).into());
    }
    Ok(given)
}
