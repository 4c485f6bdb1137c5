//! From words to commands: one from the command line, or many from standard input.

use std::io::{self, BufRead};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGWINCH};
use signal_hook::iterator::Signals;

use super::line::{Line, Reply, misuse};
use super::{client, load, server, system, udp};

/// What outlives a command: listeners, and connections kept open.
#[derive(Default)]
pub struct World {
    /// Listeners by the address they were asked for.
    pub servers: server::Servers,
    /// Connections that a command left open.
    pub held: client::Held,
}

/// One command, or several with `and` between them; a server or a holder of connections stays until
/// a signal.
pub fn once(words: &[String]) -> ExitCode {
    watch_signals();
    let world = World::default();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut stays = false;
    for words in words.split(|&word| word == "and") {
        let line = Line::reply(dispatch(&world, words));
        let ok = line.is_ok();
        line.print();
        if !ok {
            return ExitCode::FAILURE;
        }
        stays |= matches!(words.first(), Some(&("serve" | "idle" | "hold" | "wait")));
    }
    if stays {
        loop {
            thread::park();
        }
    }
    ExitCode::SUCCESS
}

/// Every line of standard input is a command of its own thread; its end is the end.
pub fn run() -> ExitCode {
    watch_signals();
    let world = Arc::new(World::default());
    Line::event("ready", json!({ "pid": std::process::id() })).print();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let world = Arc::clone(&world);
        thread::spawn(move || answer(&world, &line));
    }
    ExitCode::SUCCESS
}

fn answer(world: &World, line: &str) {
    let mut words = line.split_whitespace();
    let Some(id) = words.next() else { return };
    let words: Vec<&str> = words.collect();
    Line::reply(dispatch(world, &words)).with_id(id).print();
}

fn dispatch(world: &World, words: &[&str]) -> Reply {
    let Some((command, rest)) = words.split_first() else {
        return Err(misuse("no command"));
    };
    match *command {
        "serve" => server::serve(world, rest),
        "close" => server::close(world, rest),
        "connect" | "connect-from" | "ask" | "half" | "fin-first" | "see-reset" | "send-reset"
        | "hold" | "talk" | "release" | "push" => client::run(world, command, rest),
        "upload" | "download" | "drain" | "pour" | "many" | "burst" | "latency" | "begin"
        | "rate" | "idle" => load::run(world, command, rest),
        "udp" | "udp-connected" | "udp-latency" => udp::run(command, rest),
        _ => system::run(command, rest),
    }
}

/// Says which signal came, and leaves as the default action would say it: 128 + n.
fn watch_signals() {
    let Ok(mut signals) = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGWINCH]) else {
        return;
    };
    thread::spawn(move || {
        for number in &mut signals {
            Line::event("signal", json!({ "number": number })).print();
            if number != SIGWINCH && number != SIGUSR1 {
                std::process::exit(128 + number);
            }
        }
    });
}
