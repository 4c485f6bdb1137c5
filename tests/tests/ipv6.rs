//! Targets with addresses of both families, and with one of IPv6 alone.

use anyhow::{Result, ensure};
use mirrord_tests::lab::{Container, DEBIAN, Lab};
use mirrord_tests::mirrord::{Mirrord, Session};
use mirrord_tests::wait;

const APP: &str = include_str!("../apps/dual.py");
const ORIGINAL: [&str; 5] = ["python3", "-m", "http.server", "--bind", "::"];
const GLOBAL: &str = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";

/// A target that answers on port 80, and its client.
struct Stage<'lab> {
    lab: &'lab Lab,
    target: Container<'lab>,
    client: Container<'lab>,
}

impl<'lab> Stage<'lab> {
    fn open(lab: &'lab Lab, network: &[&str]) -> Result<Self> {
        let network = lab.network_with("inner", network)?;
        let server = [&ORIGINAL[..], &["80"]].concat();
        let target = lab.container("target").on(&network).alias("target").start(DEBIAN, &server)?;
        let client = lab.container("client").on(&network).alias("client").start(DEBIAN, &server)?;
        target.until(&["curl", "-sS", "-m", "1", "http://[::1]/"])?;
        Ok(Self { lab, target, client })
    }

    fn address(&self, of: &Container<'_>) -> Result<String> {
        self.lab.docker.inspect(&of.name, GLOBAL)
    }

    /// What the target's address answers its client.
    fn get(&self, address: &str) -> Result<String> {
        let url = match address.contains(':') {
            true => format!("http://[{address}]/"),
            false => format!("http://{address}/"),
        };
        self.client.exec(&["curl", "-sS", "-m", "5", &url])
    }

    fn datagram(&self, address: &str) -> Result<String> {
        let words = "import socket, sys\n\
                     at = socket.getaddrinfo(sys.argv[1], 90, type=socket.SOCK_DGRAM)[0]\n\
                     s = socket.socket(at[0], at[1])\n\
                     s.settimeout(2)\n\
                     s.sendto(b'question', at[4])\n\
                     try: print(s.recv(100).decode())\n\
                     except OSError as error: print(type(error).__name__)";
        self.client.exec(&["python3", "-c", words, address])
    }

    fn app(&self, mode: &str) -> Result<Session<'lab>> {
        let mirrord = Mirrord::new(self.lab, &self.target.target()).with([mode]);
        let session = mirrord.start("app", DEBIAN, &["python3", "-u", "-c", APP])?;
        wait::until_true("the app", || Ok(session.stdout().contains("ready")))?;
        Ok(session)
    }
}

#[test]
fn clients_of_both_families_reach_an_app_that_listens_on_every_address() -> Result<()> {
    let Some(lab) = Lab::open("IPv6, stolen")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab, &["--ipv6"])?;
    let client = (stage.client.address()?, stage.address(&stage.client)?);
    let target = (stage.target.address()?, stage.address(&stage.target)?);
    let mut session = stage.app("--steal")?;
    for (address, client) in [
        (&target.0, format!("local ::ffff:{} ", client.0)),
        (&target.1, format!("local {} ", client.1)),
    ] {
        wait::until_true("the app's answer", || Ok(stage.get(address)?.starts_with(&client)))?;
        wait::until_true("the app's datagram", || {
            Ok(stage.datagram(address)?.starts_with(&client))
        })?;
    }
    ensure!(session.stdout().contains(&format!(" at {} 80", target.1)), "{}", session.stdout());
    lab.docker.run(&["kill", &session.name])?;
    session.wait()?;
    ensure!(stage.get(&target.1)?.contains("<html"), "the original answers again");
    Ok(())
}

#[test]
fn an_app_gets_a_copy_of_what_clients_of_both_families_send() -> Result<()> {
    let Some(lab) = Lab::open("IPv6, mirrored")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab, &["--ipv6"])?;
    let client = (stage.client.address()?, stage.address(&stage.client)?);
    let target = (stage.target.address()?, stage.address(&stage.target)?);
    let session = stage.app("--mirror")?;
    for (address, client) in [(&target.0, format!("::ffff:{}", client.0)), (&target.1, client.1)] {
        for kind in ["connection", "datagram"] {
            wait::until_true("a copy", || {
                ensure!(stage.get(address)?.contains("<html"), "the original answers");
                stage.datagram(address)?;
                Ok(session.stdout().contains(&format!("{kind} {client} ")))
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_network_of_ipv6_alone_is_the_apps_as_well() -> Result<()> {
    let Some(lab) = Lab::open("IPv6 alone")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab, &["--ipv6", "--ipv4=false"])?;
    let (client, target) = (stage.address(&stage.client)?, stage.address(&stage.target)?);
    let words = "import errno, socket\n\
                 print(socket.gethostbyaddr('client')[2])\n\
                 s = socket.create_connection(('client', 80))\n\
                 print(s.getsockname()[0], s.getpeername()[0])\n\
                 u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
                 u.connect(('client', 9))\n\
                 u.send(b'x')\n\
                 try: u.recv(1)\n\
                 except OSError as error: print(errno.errorcode[error.errno])";
    let mirrord = Mirrord::new(&lab, &stage.target.target()).with(["--no-incoming"]);
    let done = mirrord.finish(DEBIAN, &["timeout", "10", "python3", "-c", words])?;
    let told: Vec<&str> = done.stdout.lines().collect();
    let ends = format!("{target} {client}");
    assert_eq!(told, [&format!("['{client}']"), &ends, "ECONNREFUSED"], "{done:?}");

    let session = stage.app("--steal")?;
    let expected = format!("local {client} ");
    wait::until_true("the app's answer", || Ok(stage.get(&target)?.starts_with(&expected)))?;
    drop(session);
    Ok(())
}
