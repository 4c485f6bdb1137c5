//! Many bytes, many connections, and how long they took.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{PATIENCE, address_of, number, open};
use super::line::{Reply, describe, misuse};
use super::server::{self, check, send};
use super::shell::World;

const STACK: usize = 128 * 1024;

/// The commands that measure or load.
pub fn run(world: &World, command: &str, words: &[&str]) -> Reply {
    match (command, words) {
        ("upload", [address, count]) => upload(address, number(count)?),
        ("download", [address, count]) => download(address, number(count)?),
        ("drain", [address, count]) => drain(address, number(count)?),
        ("pour", [address, count]) => pour(address, number(count)?),
        ("many", [address, count]) => many(address, usize::try_from(number(count)?).unwrap_or(1)),
        ("latency", [address, count]) => latency(address, number(count)?),
        ("begin", [address, count]) => begin(address, number(count)?),
        ("rate", [address, seconds, workers]) => rate(address, number(seconds)?, number(workers)?),
        ("burst", [address, count]) => burst(address, number(count)?),
        ("idle", [address, count]) => idle(world, address, number(count)?),
        _ => Err(misuse(format!("{command}: wrong arguments {words:?}"))),
    }
}

/// The server's own count of what came is the answer.
fn upload(address: &str, count: u64) -> Reply {
    let mut stream = open(address, "sink")?;
    stream.set_read_timeout(None)?;
    let start = Instant::now();
    send(&stream, count)?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut answer: Value =
        serde_json::from_str(&text).map_err(|_| misuse("no count came back"))?;
    answer["seconds"] = json!(seconds);
    Ok(answer)
}

fn download(address: &str, count: u64) -> Reply {
    let mut stream = open(address, &format!("source {count}"))?;
    let start = Instant::now();
    let (bytes, intact) = check(&mut stream)?;
    Ok(json!({ "bytes": bytes, "intact": intact, "seconds": start.elapsed().as_secs_f64() }))
}

/// An upload that nobody checks, for the figures.
fn drain(address: &str, count: u64) -> Reply {
    let mut stream = open(address, "drain")?;
    stream.set_read_timeout(None)?;
    let start = Instant::now();
    server::pour(&stream, count)?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_string(&mut String::new())?;
    Ok(json!({ "bytes": count, "seconds": start.elapsed().as_secs_f64() }))
}

/// A download that nobody checks.
fn pour(address: &str, count: u64) -> Reply {
    let mut stream = open(address, &format!("pour {count}"))?;
    let start = Instant::now();
    let bytes = server::discard(&mut stream)?;
    Ok(json!({ "bytes": bytes, "seconds": start.elapsed().as_secs_f64() }))
}

/// One connection after the other, each of a single byte and closed at once; where each came from.
fn burst(address: &str, count: u64) -> Reply {
    let address = address_of(address)?;
    let mut locals = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.write_all(b"x")?;
        locals.push(stream.local_addr()?.to_string());
    }
    Ok(json!({ "locals": locals }))
}

/// All open at the same time before the first one talks.
fn many(address: &str, count: usize) -> Reply {
    let address = Arc::new(address_of(address)?.to_string());
    let barrier = Arc::new(Barrier::new(count));
    let start = Instant::now();
    let workers: Vec<_> = (0..count)
        .map(|index| {
            let (address, barrier) = (Arc::clone(&address), Arc::clone(&barrier));
            thread::Builder::new()
                .stack_size(STACK)
                .spawn(move || one_of_many(&address, index, &barrier))
        })
        .collect::<Result<_, _>>()?;
    let mut failures = Vec::new();
    for worker in workers {
        match worker.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(describe(&error)),
            Err(_) => failures.push(json!("panicked")),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let intact = count - failures.len();
    failures.truncate(5);
    Ok(json!({ "intact": intact, "failures": failures, "seconds": seconds }))
}

fn one_of_many(address: &str, index: usize, barrier: &Barrier) -> std::io::Result<()> {
    let opened = open(address, "echo");
    barrier.wait();
    let mut stream = opened?;
    let payload = format!("connection {index} ").repeat(64).into_bytes();
    stream.write_all(&payload)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    if back == payload {
        Ok(())
    } else {
        Err(misuse(format!("connection {index} got {} other bytes", back.len())))
    }
}

/// 64 bytes there and back on one connection.
fn latency(address: &str, count: u64) -> Reply {
    let mut stream = open(address, "echo")?;
    let (sent, mut back) = ([7; 64], [0; 64]);
    let mut micros = Vec::new();
    for round in 0..count + count / 10 {
        let start = Instant::now();
        stream.write_all(&sent)?;
        stream.read_exact(&mut back)?;
        if round >= count / 10 {
            micros.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(quantiles(micros))
}

/// p50 and p99 of what was measured, in its unit.
pub fn quantiles(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values.get(values.len() * share / 100).copied().unwrap_or(0.0);
    json!({ "p50": at(50), "p99": at(99), "count": values.len() })
}

/// Connect, 64 bytes there and back, end: how many a second. The server ends first, so that no
/// port of the client waits.
fn rate(address: &str, seconds: u64, workers: u64) -> Reply {
    let address = Arc::new(address_of(address)?.to_string());
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let start = Instant::now();
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let (address, done, stop) =
                (Arc::clone(&address), Arc::clone(&done), Arc::clone(&stop));
            thread::spawn(move || connect_again_and_again(&address, &done, &stop))
        })
        .collect();
    thread::sleep(Duration::from_secs(seconds));
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().map_err(|_| misuse("a worker failed"))??;
    }
    let count = done.load(Ordering::Relaxed);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let per_second = count as f64 / start.elapsed().as_secs_f64();
    Ok(json!({ "count": count, "per_second": per_second }))
}

fn connect_again_and_again(
    address: &str,
    done: &AtomicU64,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let address = address_of(address)?;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = echoed_once(&address)?;
        ended(&mut stream)?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Connect and 64 bytes there and back, on one connection after the other: the server ends each.
fn begin(address: &str, count: u64) -> Reply {
    let address = address_of(address)?;
    let mut micros = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let mut stream = echoed_once(&address)?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
        ended(&mut stream)?;
    }
    Ok(quantiles(micros))
}

fn echoed_once(address: &SocketAddr) -> std::io::Result<TcpStream> {
    let mut request = b"once\n".to_vec();
    request.extend([7; 64]);
    let mut stream = TcpStream::connect_timeout(address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&request)?;
    stream.read_exact(&mut [0; 64])?;
    Ok(stream)
}

fn ended(stream: &mut TcpStream) -> std::io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(misuse("more bytes came back than were sent")),
    }
}

/// Opens connections that do nothing, until `release`.
fn idle(world: &World, address: &str, count: u64) -> Reply {
    let address = address_of(address)?;
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(TcpStream::connect_timeout(&address, PATIENCE)?);
    }
    world.held.keep(streams);
    Ok(json!({ "open": count }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let told = quantiles((0..100).rev().map(f64::from).collect());
        assert_eq!(told["p50"], 50.0);
        assert_eq!(told["p99"], 99.0);
    }
}
