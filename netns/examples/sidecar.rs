//! The plane alone, to try it in a container: `sidecar IDENTITY[,SUBNET/PREFIX] [NAMESERVER]`.
//!
//! Answers every steered connection and datagram with a line that says what was seen, and brings
//! each new listening TCP socket of the app one connection from a made-up client.
#![allow(missing_docs)]

use std::{
    collections::HashSet,
    error::Error,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use mirrord_netns::{
    MARK_TO_APP, Plan, Plane, Proto, Subnet,
    listeners::Scanner,
    plane::DOCKER_DNS,
    privileges::{self, Capability},
    spoof::{UdpSender, connect_as},
};

const CLIENT: ([u8; 4], u16) = ([203, 0, 113, 9], 40_000);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().ok_or("whose place?")?;
    let (identity, subnet) = target.split_once(',').unwrap_or((&target, ""));
    let plan = Plan {
        identity: vec![identity.parse()?],
        identity_subnets: parse_subnet(subnet)?,
        loopback_nameservers: arguments.map(|server| server.parse()).collect::<Result<_, _>>()?,
        steer_tcp: true,
        steer_udp: true,
    };
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let plane = runtime.block_on(plan.apply())?;
    println!("applied in {:?}", started.elapsed());
    privileges::keep_only(&[Capability::NetRaw, Capability::NetAdmin])?;
    println!("marks need NET_ADMIN: {}", privileges::marks_need_net_admin());
    println!("{}", memory()?);
    serve(&plane, plan.identity[0])
}

fn parse_subnet(text: &str) -> Result<Vec<Subnet>, Box<dyn Error>> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Ok(Vec::new());
    };
    Ok(vec![Subnet { address: address.parse()?, prefix: prefix.parse()? }])
}

fn memory() -> io::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let lines =
        status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    Ok(lines.collect::<Vec<_>>().join(", "))
}

fn serve(plane: &Plane, identity: IpAddr) -> Result<(), Box<dyn Error>> {
    let sender = UdpSender::open(MARK_TO_APP)?;
    let mut scanner = Scanner::open()?;
    let mut known: HashSet<u64> = plane.own_sockets().iter().copied().collect();
    let mut buffer = vec![0; 65_536];
    loop {
        plane.tcp().iter().try_for_each(answer)?;
        for socket in plane.udp() {
            while let Ok(datagram) = socket.recv(&mut buffer) {
                let line = format!("udp {} to {}\n", datagram.from, datagram.to);
                sender.send(datagram.to, datagram.from, line.as_bytes())?;
            }
        }
        for found in scanner.scan()? {
            let listens = found.proto == Proto::Tcp && found.address.is_ipv4();
            if known.insert(found.cookie) && listens && found.address.ip() != DOCKER_DNS {
                println!("{found:?}");
                bring(found.address, identity)?;
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn answer(listener: &TcpListener) -> io::Result<()> {
    while let Ok((mut stream, from)) = listener.accept() {
        let line = format!("tcp {from} to {}\n", stream.local_addr()?);
        if let Err(error) = stream.write_all(line.as_bytes()) {
            println!("{line}: {error}");
        }
    }
    Ok(())
}

fn bring(bound: SocketAddr, identity: IpAddr) -> io::Result<()> {
    let ip = if bound.ip().is_unspecified() { identity } else { bound.ip() };
    let socket = connect_as(CLIENT.into(), SocketAddr::new(ip, bound.port()))?;
    socket.set_nonblocking(false)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"hello\n")?;
    let mut reply = [0; 100];
    let length = stream.read(&mut reply).unwrap_or(0);
    println!("the app replied {:?}", String::from_utf8_lossy(&reply[..length]));
    Ok(())
}
