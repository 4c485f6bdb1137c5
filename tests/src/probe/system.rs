//! What the probe finds around it: names, variables, files, addresses.

use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use serde_json::{Map, Value, json};

use super::client::number;
use super::line::{Reply, misuse};

/// The commands that look around.
pub fn run(command: &str, words: &[&str]) -> Reply {
    match (command, words) {
        ("true", []) => Ok(Value::Null),
        ("wait", []) => Ok(json!({ "waiting": true })),
        ("args", _) => Ok(json!({ "args": words })),
        ("env", []) => Ok(json!({ "env": environment() })),
        ("hostname", []) => Ok(json!({ "hostname": hostname()? })),
        ("resolve", [name]) => resolve(name),
        ("read", [file]) => Ok(json!({ "text": std::fs::read_to_string(file)? })),
        ("addresses", []) => addresses(),
        ("capabilities", []) => capabilities(),
        ("say", [stream, text]) => say(stream, text),
        ("sleep", [millis]) => {
            std::thread::sleep(Duration::from_millis(number(millis)?));
            Ok(Value::Null)
        }
        ("exit", [code]) => std::process::exit(i32::try_from(number(code)?).unwrap_or(1)),
        _ => Err(misuse(format!("unknown command {command} {words:?}"))),
    }
}

fn environment() -> Map<String, Value> {
    std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned().into())
        })
        .collect()
}

fn hostname() -> io::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

fn resolve(name: &str) -> Reply {
    let mut addresses: Vec<String> =
        (name, 0).to_socket_addrs()?.map(|address| address.ip().to_string()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(json!({ "addresses": addresses }))
}

fn addresses() -> Reply {
    let found: Vec<Value> = getifaddrs()?
        .filter_map(|entry| {
            let address = entry.address?.as_sockaddr_in()?.ip();
            Some(json!({ "name": entry.interface_name, "address": address }))
        })
        .collect();
    Ok(json!({ "addresses": found }))
}

/// The capability sets of this process, as the kernel writes them.
fn capabilities() -> Reply {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let sets: Map<String, Value> = status
        .lines()
        .filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"))
        .map(|(set, bits)| (set.to_owned(), bits.into()))
        .collect();
    Ok(json!({ "capabilities": sets }))
}

fn say(stream: &str, text: &str) -> Reply {
    match stream {
        "stdout" => writeln!(io::stdout(), "{text}")?,
        _ => writeln!(io::stderr(), "{text}")?,
    }
    Ok(Value::Null)
}
