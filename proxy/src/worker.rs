//! The proxy proper: one tunnel after another, and the tasks that use them.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use mirrord_netns::listeners::Scanner;
use mirrord_protocol::control::{AGENT_SOCKET, ProxyConfig, ProxyEvent, Target};
use mirrord_protocol::frame::{Description, Frame};
use mirrord_tunnel::{HandshakeError, Role, Socket, Tunnel, UnixPipe};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, UnixStream};
use tokio::time::Instant;
use tracing::{debug, info};
use tracing_subscriber::EnvFilter;

use crate::datagrams::Datagrams;
use crate::link::{Link, Peer};
use crate::report::{self, say};
use crate::setup::{self, Applied};
use crate::{outgoing, ports};

/// How long an agent may take to appear, at the start and after it was killed.
const GRACE: Duration = Duration::from_secs(30);
/// How often the agent's socket is tried, and the end of a delivery looked for.
const RETRY: Duration = Duration::from_millis(5);
/// How long the last bytes of the app may take to arrive.
const DELIVERY: Duration = Duration::from_millis(1500);

/// Runs the worker; see the crate.
pub fn run() -> ExitCode {
    match mirrord_tunnel::on_one_thread(work()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failed(&error);
            ExitCode::FAILURE
        }
    }
}

async fn work() -> anyhow::Result<()> {
    let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
    let mut stdin = BufReader::new(pipe::Receiver::from_owned_fd(stdin)?);
    let mut line = String::new();
    stdin.read_line(&mut line).await.context("reading the configuration")?;
    let config: ProxyConfig = serde_json::from_str(&line).context("reading the configuration")?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let link = Link::new(config.clone());
    tokio::select! {
        result = serve(config, link.clone()) => result,
        () = farewell(stdin, &link) => Ok(()),
    }
}

/// Waits until the session is over, and what the app has sent up to its end has arrived: an app
/// may write, close and exit at once.
async fn farewell(mut stdin: BufReader<pipe::Receiver>, link: &Link) {
    let mut ignored = [0; 256];
    while matches!(stdin.read(&mut ignored).await, Ok(n) if n > 0) {}
    let delivered = async {
        while link.tunnel_now().is_some_and(|tunnel| !tunnel.is_delivered()) {
            tokio::time::sleep(RETRY).await;
        }
    };
    let _ = tokio::time::timeout(DELIVERY, delivered).await;
}

async fn serve(config: ProxyConfig, link: Rc<Link>) -> anyhow::Result<()> {
    let mut socket = connect(&config).await?;
    say(&ProxyEvent::Connected);
    let mut tasks = tokio::task::JoinSet::new();
    let mut started = false;
    loop {
        let tunnel = Tunnel::new(Role::Proxy);
        let peer = Peer::new(link.clone());
        let end = {
            let driving = tunnel.drive(socket, &peer);
            tokio::pin!(driving);
            if !started {
                tunnel.send(&Frame::Describe { env: config.env });
                let description = tokio::select! {
                    end = &mut driving => return Err(end).context("asking who the target is"),
                    description = peer.description() => description,
                };
                let (applied, scanner) = tokio::select! {
                    end = &mut driving => return Err(end).context("setting up the network"),
                    applied = setup::apply(&config, &description) => applied?,
                };
                start(&link, applied, scanner, &mut tasks)?;
                say(&ProxyEvent::Ready(target(&description)));
                started = true;
            } else {
                say(&ProxyEvent::Reconnected);
            }
            link.up(&tunnel);
            tokio::select! {
                end = driving => end,
                Some(ended) = tasks.join_next() => {
                    return Err(ended.unwrap_or_else(anyhow::Error::new));
                }
            }
        };
        link.down();
        let reason = format!("{:#}", anyhow::Error::new(end));
        info!(reason, "tunnel down");
        say(&ProxyEvent::Disconnected { reason });
        socket = connect(&config).await?;
    }
}

fn start(
    link: &Rc<Link>,
    applied: Applied,
    scanner: Scanner,
    tasks: &mut tokio::task::JoinSet<anyhow::Error>,
) -> anyhow::Result<()> {
    let own_sockets = applied.plane.own_sockets().to_vec();
    for listener in applied.plane.tcp() {
        let listener = TcpListener::from_std(listener.try_clone()?)?;
        tasks.spawn_local(outgoing::accept(link.clone(), applied.names.clone(), listener));
    }
    let datagrams = Datagrams::new(link.clone(), applied);
    link.set_datagrams(&datagrams);
    for (index, readiness) in datagrams.readiness()?.into_iter().enumerate() {
        tasks.spawn_local(datagrams.clone().receive(index, readiness));
    }
    tasks.spawn_local(datagrams.expire());
    tasks.spawn_local(ports::watch(link.clone(), scanner, own_sockets));
    Ok(())
}

/// Connects to the agent's socket as soon as it is there.
async fn connect(config: &ProxyConfig) -> anyhow::Result<Socket<UnixPipe>> {
    let deadline = Instant::now() + GRACE;
    loop {
        let error = match UnixStream::connect(AGENT_SOCKET).await {
            Ok(pipe) => match handshake(pipe, config).await {
                Ok(socket) => return Ok(socket),
                Err(error @ HandshakeError::Refused(_)) => return Err(error.into()),
                Err(error) => anyhow::Error::new(error),
            },
            Err(error) => anyhow::Error::new(error),
        };
        debug!(%error, "no agent yet");
        if Instant::now() >= deadline {
            return Err(error.context(format!("no agent within {} s", GRACE.as_secs())));
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn handshake(
    pipe: UnixStream,
    config: &ProxyConfig,
) -> Result<Socket<UnixPipe>, HandshakeError> {
    let pipe = UnixPipe::from_tokio(pipe).map_err(HandshakeError::Pipe)?;
    mirrord_tunnel::connect(pipe, &config.token).await
}

fn target(description: &Description) -> Target {
    let (mut env, mut env_skipped) = (Vec::new(), Vec::new());
    for entry in description.environ.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let equals = entry.iter().position(|byte| *byte == b'=').unwrap_or(entry.len());
        let (name, value) = (&entry[..equals], entry.get(equals + 1..));
        let name = String::from_utf8_lossy(name).into_owned();
        match value.map(|value| std::str::from_utf8(value)) {
            Some(Ok(value)) => env.push((name, value.to_owned())),
            Some(Err(_)) => env_skipped.push(name),
            None => {}
        }
    }
    Target {
        hostname: description.hostname.clone(),
        addresses: description.addresses.iter().map(|(ip, _)| *ip).collect(),
        env,
        env_skipped,
    }
}
