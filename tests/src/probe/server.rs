//! Servers. The TCP one does what the first line of each connection says:
//!
//! | line | what |
//! |---|---|
//! | `whoami` | one JSON line with the name and both addresses, then the end |
//! | `echo` | everything comes back until the client's end |
//! | `once` | one read comes back, then the end |
//! | `sink` | counts and checks all that comes, then says so |
//! | `source N` | N bytes of the pattern |
//! | `drain` | counts all that comes, then says so: nothing is checked |
//! | `pour N` | N bytes of no meaning |
//! | `fin-first` | ends its own direction at once, then counts what still comes |
//! | `reset` | resets the connection |
//! | `await-reset` | says how the connection ended |
//! | `stall` | reads nothing, until the listener closes |

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};

use super::line::{Line, Reply, describe, misuse};
use super::pattern::Pattern;
use super::shell::World;

const STACK: usize = 192 * 1024;
const BUFFER: usize = 64 * 1024;

/// Listeners by the address they were asked for.
#[derive(Default)]
pub struct Servers(Mutex<HashMap<String, Socket>>);

const USAGE: &str = "serve tcp|quiet|http|tokio|udp|keep ADDRESS [NAME]";

/// `serve tcp|quiet|http|tokio|udp|keep ADDRESS [NAME]`.
pub fn serve(world: &World, words: &[&str]) -> Reply {
    let (kind, address, name) = match *words {
        [kind, address] => (kind, address, ""),
        [kind, address, name] => (kind, address, name),
        _ => return Err(misuse(USAGE)),
    };
    let wanted: SocketAddr = address.parse().map_err(|_| misuse("not an address"))?;
    if kind == "udp" {
        return serve_udp(world, address, wanted, name);
    }
    let listener = listen(wanted)?;
    let local = listener.local_addr()?;
    remember(world, address, Socket::from(listener.try_clone()?));
    let name = name.to_owned();
    match kind {
        "tcp" => spawn(move || accept(&listener, true, move |stream| converse(stream, &name))),
        "quiet" => spawn(move || accept(&listener, false, move |stream| converse(stream, &name))),
        "http" => spawn(move || accept(&listener, true, move |stream| answer_http(stream, &name))),
        "keep" => spawn(move || keep(&listener)),
        "tokio" => spawn(move || accept_in_tokio(listener, &name)),
        _ => return Err(misuse(USAGE)),
    }?;
    Ok(json!({ "listening": local }))
}

/// `close ADDRESS`: the listener of that address ends.
pub fn close(world: &World, words: &[&str]) -> Reply {
    let address = words.first().ok_or_else(|| misuse("close ADDRESS"))?;
    let mut servers = world.servers.0.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = servers.remove(*address).ok_or_else(|| misuse("no such listener"))?;
    match socket.shutdown(Shutdown::Both) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
        _ => Ok(Value::Null),
    }
}

fn remember(world: &World, address: &str, socket: Socket) {
    let mut servers = world.servers.0.lock().unwrap_or_else(PoisonError::into_inner);
    servers.insert(address.to_owned(), socket);
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK).spawn(work).map(drop)
}

/// Each connection is told, unless thousands a second are to be served.
fn accept<F>(listener: &TcpListener, told: bool, handle: F)
where
    F: Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
{
    while let Ok((stream, peer)) = listener.accept() {
        if told {
            let local = stream.local_addr().ok();
            Line::event("accept", json!({ "peer": peer, "local": local })).print();
        }
        let handle = handle.clone();
        let started = spawn(move || {
            if let Err(error) = handle(stream) {
                let details = merged(describe(&error), json!({ "peer": peer }));
                Line::event("error", details).print();
            }
        });
        if let Err(error) = started {
            Line::event("error", describe(&error)).print();
        }
    }
}

/// The same as `http`, with the accept of an async runtime.
fn accept_in_tokio(listener: TcpListener, name: &str) {
    let served = || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        listener.set_nonblocking(true)?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (stream, peer) = listener.accept().await?;
                Line::event("accept", json!({ "peer": peer })).print();
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                let name = name.to_owned();
                spawn(move || drop(answer_http(stream, &name)))?;
            }
        })
    };
    if let Err(error) = served() {
        Line::event("error", describe(&error)).print();
    }
}

/// Accepts without a thread for each, for thousands of idle connections; says how many every 1,000.
fn keep(listener: &TcpListener) {
    let mut kept = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        kept.push(stream);
        if kept.len() % 1000 == 0 {
            Line::event("kept", json!({ "count": kept.len() })).print();
        }
    }
}

fn converse(stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(BUFFER, stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    match *words.as_slice() {
        ["whoami"] => whoami(&stream, name),
        ["echo"] => echo(reader, stream),
        ["once"] => once(reader, stream),
        ["sink"] => sink(reader, stream),
        ["source", count] => source(&stream, count.parse().map_err(|_| misuse("not a number"))?),
        ["drain"] => drain(reader, stream),
        ["pour", count] => pour(&stream, count.parse().map_err(|_| misuse("not a number"))?),
        ["fin-first"] => fin_first(reader, &stream),
        ["reset"] => SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
        ["await-reset"] => await_end(reader),
        ["stall"] => {
            thread::sleep(Duration::from_secs(3600));
            Ok(())
        }
        [] => {
            Line::event("empty", json!({ "peer": stream.peer_addr().ok() })).print();
            Ok(())
        }
        _ => Err(misuse(format!("unknown verb {line:?}"))),
    }
}

fn whoami(mut stream: &TcpStream, name: &str) -> io::Result<()> {
    let mut text = seen(stream, name)?.to_string();
    text.push('\n');
    stream.write_all(text.as_bytes())
}

fn seen(stream: &TcpStream, name: &str) -> io::Result<Value> {
    Ok(json!({ "name": name, "peer": stream.peer_addr()?, "local": stream.local_addr()? }))
}

fn echo(mut reader: BufReader<TcpStream>, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&buffer[..count])?;
    }
}

fn once(mut reader: BufReader<TcpStream>, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 2048];
    let count = reader.read(&mut buffer)?;
    stream.write_all(&buffer[..count])
}

fn sink(mut reader: BufReader<TcpStream>, mut stream: TcpStream) -> io::Result<()> {
    let (bytes, intact) = check(&mut reader)?;
    Line::event("sunk", json!({ "bytes": bytes, "intact": intact })).print();
    writeln!(stream, "{}", json!({ "bytes": bytes, "intact": intact }))
}

/// Reads the pattern to its end; how much came, and whether it was the very stream.
pub fn check(reader: &mut impl Read) -> io::Result<(u64, bool)> {
    let pattern = Pattern::new();
    let mut buffer = vec![0; 4 * BUFFER];
    let (mut offset, mut intact) = (0, true);
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok((offset, intact));
        }
        intact = intact && pattern.holds(offset, &buffer[..count]);
        offset += count as u64;
    }
}

fn source(stream: &TcpStream, count: u64) -> io::Result<()> {
    send(stream, count)
}

/// Writes the first `count` bytes of the pattern.
pub fn send(mut stream: &TcpStream, count: u64) -> io::Result<()> {
    let pattern = Pattern::new();
    let mut offset = 0;
    while offset < count {
        let len = (count - offset).min(4 * BUFFER as u64);
        stream.write_all(pattern.at(offset, usize::try_from(len).unwrap_or(BUFFER)))?;
        offset += len;
    }
    Ok(())
}

fn drain(mut reader: BufReader<TcpStream>, mut stream: TcpStream) -> io::Result<()> {
    let bytes = discard(&mut reader)?;
    writeln!(stream, "{}", json!({ "bytes": bytes }))
}

/// Reads to the end; how much came.
pub fn discard(reader: &mut impl Read) -> io::Result<u64> {
    let mut buffer = vec![0; 4 * BUFFER];
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => bytes += count as u64,
        }
    }
}

/// Writes `count` bytes as fast as they go.
pub fn pour(mut stream: &TcpStream, mut count: u64) -> io::Result<()> {
    let buffer = vec![7; 4 * BUFFER];
    while count > 0 {
        let len = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
        stream.write_all(&buffer[..len])?;
        count -= len as u64;
    }
    Ok(())
}

fn fin_first(mut reader: BufReader<TcpStream>, stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;
    Line::event("after-fin", json!({ "bytes": rest.len() })).print();
    Ok(())
}

fn await_end(mut reader: BufReader<TcpStream>) -> io::Result<()> {
    let how = match reader.read_to_end(&mut Vec::new()) {
        Ok(count) => json!({ "bytes": count, "errno": null }),
        Err(error) => describe(&error),
    };
    Line::event("ended", how).print();
    Ok(())
}

/// One request, one answer that says who serves and what it saw.
fn answer_http(stream: TcpStream, name: &str) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let body = io::copy(&mut reader.take(length), &mut io::sink())?;
    let path = request.split(' ').nth(1).unwrap_or("").to_owned();
    let seen = seen(&stream, name)?;
    let details = merged(seen.clone(), json!({ "path": path, "body": body }));
    Line::event("request", details).print();
    respond(&stream, &format!("{seen}\n"))
}

fn respond(mut stream: &TcpStream, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())
}

fn serve_udp(world: &World, asked: &str, wanted: SocketAddr, name: &str) -> Reply {
    let socket = UdpSocket::bind(wanted)?;
    let local = socket.local_addr()?;
    remember(world, asked, Socket::from(socket.try_clone()?));
    let name = name.to_owned();
    spawn(move || answer_datagrams(&Arc::new(socket), &name))?;
    Ok(json!({ "listening": local }))
}

/// The text comes back with the name and the sender's address; large ones come back as they are.
fn answer_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = vec![0; 65536];
    while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
        let payload = &buffer[..count];
        if count > 512 || payload.starts_with(b"ping ") {
            let _ = socket.send_to(payload, peer);
            continue;
        }
        let text = String::from_utf8_lossy(payload).into_owned();
        if count == 0 && peer.ip().is_unspecified() {
            return;
        }
        let seen = json!({ "name": name, "peer": peer, "text": text });
        Line::event("datagram", seen.clone()).print();
        let _ = socket.send_to(seen.to_string().as_bytes(), peer);
    }
}

fn merged(mut one: Value, other: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut one, other) {
        fields.extend(more);
    }
    one
}
