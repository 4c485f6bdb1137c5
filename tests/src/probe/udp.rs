//! Datagrams.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{address_of, number};
use super::line::{Reply, misuse};
use super::load::quantiles;

const PATIENCE: Duration = Duration::from_secs(3);

/// The commands that send datagrams.
pub fn run(command: &str, words: &[&str]) -> Reply {
    match (command, words) {
        ("udp", [address, text]) => ask(address, text.as_bytes()),
        ("udp", ["big", address, count]) => {
            ask(address, &vec![b'x'; usize::try_from(number(count)?).unwrap_or(0)])
        }
        ("udp-connected", [address, text]) => ask_connected(address, text),
        ("udp-latency", [address, count]) => latency(address, number(count)?),
        _ => Err(misuse(format!("{command}: wrong arguments {words:?}"))),
    }
}

fn ask(address: &str, payload: &[u8]) -> Reply {
    let to = address_of(address)?;
    let socket = open()?;
    socket.send_to(payload, to)?;
    let mut buffer = vec![0; 65536];
    let (count, from) = socket.recv_from(&mut buffer)?;
    Ok(json!({
        "answer": parsed(&buffer[..count]), "bytes": count, "from": from, "local": socket.local_addr()?
    }))
}

fn ask_connected(address: &str, text: &str) -> Reply {
    let socket = open()?;
    socket.connect(address_of(address)?)?;
    socket.send(text.as_bytes())?;
    let mut buffer = vec![0; 65536];
    let count = socket.recv(&mut buffer)?;
    Ok(json!({
        "answer": parsed(&buffer[..count]), "from": socket.peer_addr()?, "local": socket.local_addr()?
    }))
}

fn latency(address: &str, count: u64) -> Reply {
    let socket = open()?;
    socket.connect(address_of(address)?)?;
    let mut buffer = [0; 64];
    let mut micros = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        socket.send(b"ping 0123456789")?;
        socket.recv(&mut buffer)?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(quantiles(micros))
}

fn open() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn parsed(payload: &[u8]) -> Value {
    let text = String::from_utf8_lossy(payload);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| Value::from(text.chars().take(80).collect::<String>()))
}
