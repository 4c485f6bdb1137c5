//! Clients of the probe's own server: one connection each, told as it was.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};

use super::line::{Reply, describe, misuse};
use super::pattern::Pattern;
use super::shell::World;

/// How long a connection or an answer may take unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Connections that stay open until `release`.
#[derive(Default)]
pub struct Held(Mutex<Vec<TcpStream>>);

impl Held {
    /// Keeps it open.
    pub fn keep(&self, streams: impl IntoIterator<Item = TcpStream>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(streams);
    }

    /// So many bytes there and back on each, which must echo.
    fn talk(&self, count: u64) -> Reply {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sent: Vec<u8> = (0..count).map(|index| (index % 251) as u8).collect();
        let (mut back, mut locals) = (vec![0; sent.len()], Vec::new());
        for mut stream in held.iter() {
            stream.write_all(&sent)?;
            stream.read_exact(&mut back)?;
            if back != sent {
                return Err(misuse("other bytes came back"));
            }
            locals.push(stream.local_addr()?);
        }
        Ok(json!({ "locals": locals }))
    }

    fn release(&self) -> usize {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.drain(..).count()
    }
}

/// The commands that concern one connection.
pub fn run(world: &World, command: &str, words: &[&str]) -> Reply {
    match (command, words) {
        ("connect", [address]) => timed_connect(address, PATIENCE),
        ("connect", [address, millis]) => {
            timed_connect(address, Duration::from_millis(number(millis)?))
        }
        ("connect-from", [local, address]) => connect_from(local, address),
        ("ask", [address, verb @ ..]) => ask(address, &verb.join(" ")),
        ("half", [address, count]) => half_close(address, number(count)?),
        ("fin-first", [address, count]) => fin_first(address, number(count)?),
        ("see-reset", [address]) => see_reset(address),
        ("send-reset", [address]) => send_reset(address),
        ("hold", [address, verb @ ..]) => {
            world.held.keep([open(address, &verb.join(" "))?]);
            Ok(Value::Null)
        }
        ("talk", [count]) => world.held.talk(number(count)?),
        ("release", []) => Ok(json!({ "released": world.held.release() })),
        ("push", [address, millis]) => push(world, address, Duration::from_millis(number(millis)?)),
        _ => Err(misuse(format!("{command}: wrong arguments {words:?}"))),
    }
}

/// A decimal number among the words.
pub fn number(word: &str) -> io::Result<u64> {
    word.parse().map_err(|_| misuse(format!("not a number: {word}")))
}

/// The first address of `HOST:PORT`.
pub fn address_of(name: &str) -> io::Result<SocketAddr> {
    name.to_socket_addrs()?.next().ok_or_else(|| misuse("no address"))
}

/// Connects and says the verb.
pub fn open(address: &str, verb: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address_of(address)?, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{verb}\n").as_bytes())?;
    Ok(stream)
}

fn timed_connect(address: &str, patience: Duration) -> Reply {
    let address = address_of(address)?;
    let start = Instant::now();
    let result = TcpStream::connect_timeout(&address, patience);
    let micros = start.elapsed().as_micros();
    match result {
        Ok(stream) => Ok(json!({
            "local": stream.local_addr()?, "peer": stream.peer_addr()?, "micros": micros
        })),
        Err(error) => {
            let mut told = describe(&error);
            told["ok"] = false.into();
            told["micros"] = json!(micros);
            Ok(told)
        }
    }
}

fn connect_from(local: &str, address: &str) -> Reply {
    let address = address_of(address)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address_of(local)?.into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    read_answer(stream, "whoami")
}

fn ask(address: &str, verb: &str) -> Reply {
    let stream = TcpStream::connect_timeout(&address_of(address)?, PATIENCE)?;
    read_answer(stream, verb)
}

fn read_answer(mut stream: TcpStream, verb: &str) -> Reply {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    if let Some(path) = verb.strip_prefix("http ") {
        // All at once: some servers read once.
        let request = format!("GET {path} HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
    } else {
        stream.write_all(format!("{verb}\n").as_bytes())?;
    }
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.rsplit("\r\n\r\n").next().unwrap_or("").trim();
    let answer = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    Ok(json!({ "answer": answer, "local": local, "peer": peer }))
}

/// The client ends its direction first, and still gets everything back.
fn half_close(address: &str, count: u64) -> Reply {
    let mut stream = open(address, "echo")?;
    let mut writer = stream.try_clone()?;
    let sender = std::thread::spawn(move || {
        super::server::send(&writer, count)?;
        writer.flush()?;
        writer.shutdown(Shutdown::Write)
    });
    let (bytes, intact) = super::server::check(&mut stream)?;
    sender.join().map_err(|_| misuse("the sender failed"))??;
    Ok(json!({ "bytes": bytes, "intact": intact }))
}

/// The server ends its direction first, and still gets everything.
fn fin_first(address: &str, count: u64) -> Reply {
    let mut stream = open(address, "fin-first")?;
    let early = stream.read(&mut [0; 16])?;
    super::server::send(&stream, count)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(json!({ "read": early }))
}

fn see_reset(address: &str) -> Reply {
    let mut stream = open(address, "reset")?;
    match stream.read_to_end(&mut Vec::new()) {
        Ok(count) => Ok(json!({ "errno": null, "bytes": count })),
        Err(error) => Ok(describe(&error)),
    }
}

fn send_reset(address: &str) -> Reply {
    let stream = open(address, "await-reset")?;
    // The verb must be there before the reset discards what is on its way.
    std::thread::sleep(Duration::from_millis(200));
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(Value::Null)
}

/// Writes to a server that does not read, until nothing has been taken for `quiet`; stays open.
fn push(world: &World, address: &str, quiet: Duration) -> Reply {
    let mut stream = open(address, "stall")?;
    stream.set_write_timeout(Some(quiet))?;
    let pattern = Pattern::new();
    let mut taken = 0;
    loop {
        match stream.write(pattern.at(taken, 65536)) {
            Ok(count) => taken += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    world.held.keep([stream]);
    Ok(json!({ "taken": taken }))
}
