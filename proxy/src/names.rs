//! Names as the target resolves them.
//!
//! The app's own resolver does the work, with the target's resolv.conf: its questions are datagrams
//! and connections like any other. All that is added here is Docker's embedded name server, for
//! names that the target's does not know.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use mirrord_netns::plane::{DOCKER_DNS, PROXY_DNS_SOURCE};
use mirrord_protocol::control::{DNS_VIA_PROXY, ProxyConfig};
use mirrord_protocol::frame::Description;
use tokio::net::UdpSocket;

pub(crate) const DNS_PORT: u16 = 53;
/// What Docker's embedded name server may take to answer for a container.
const EMBEDDED_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a DNS header; RFC 1035, section 4.1.1.
const HEADER: usize = 12;

/// Who answers for names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The target's, in its order.
    pub(crate) nameservers: Vec<IpAddr>,
    /// Whether Docker's embedded name server is in this namespace.
    pub(crate) embedded: bool,
}

impl Names {
    /// Where the agent shall send what the app sends to `to`.
    pub(crate) fn remote(&self, to: SocketAddr) -> SocketAddr {
        match self.nameservers.first() {
            Some(&first) if to.ip() == DNS_VIA_PROXY => SocketAddr::new(first, to.port()),
            // Where Docker's own server is, Docker has rewritten the port of every question.
            _ if to.ip() == DOCKER_DNS => SocketAddr::new(DOCKER_DNS, DNS_PORT),
            _ => to,
        }
    }

    /// Whether the target answers for names there.
    pub(crate) fn answers_at(&self, to: SocketAddr) -> bool {
        let known = self.nameservers.contains(&to.ip()) || to.ip() == DNS_VIA_PROXY;
        known && self.remote(to).port() == DNS_PORT
    }

    /// Whether Docker shall be asked as well. Not for what Docker itself asks.
    pub(crate) fn ask_docker(&self, to: SocketAddr) -> bool {
        self.embedded && self.answers_at(to) && to.ip() != DNS_VIA_PROXY
    }
}

/// The first target's name servers, if names are to be resolved as it does.
pub(crate) fn nameservers(config: &ProxyConfig, targets: &[&Description]) -> Vec<IpAddr> {
    match targets.first() {
        Some(first) if config.remote_dns => listed(&String::from_utf8_lossy(&first.resolv_conf)),
        _ => Vec::new(),
    }
}

/// The name servers of a resolv.conf; resolv.conf(5).
pub(crate) fn listed(resolv_conf: &str) -> Vec<IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    });
    let mut known = Vec::new();
    for server in servers {
        if !known.contains(&server) {
            known.push(server);
        }
    }
    known
}

/// The app's /etc/hosts: what the user added, then the target's.
pub(crate) fn hosts(added: &[String], targets: &[u8]) -> Vec<u8> {
    let mut hosts = Vec::new();
    for line in added {
        hosts.extend_from_slice(line.as_bytes());
        hosts.push(b'\n');
    }
    hosts.extend_from_slice(targets);
    hosts
}

/// The number by which a question and its answer find each other.
pub(crate) fn id(message: &[u8]) -> Option<[u8; 2]> {
    message.get(..2)?.try_into().ok()
}

/// Whether an answer says that the name is not known, or that it could not be asked for.
pub(crate) fn failed(answer: &[u8]) -> bool {
    answer.len() >= HEADER && answer[3] & 0xf != 0
}

/// Docker's answer, if Docker knows the name.
pub(crate) async fn ask_embedded(question: &[u8]) -> Option<Bytes> {
    let answer = tokio::time::timeout(EMBEDDED_PATIENCE, exchange(question)).await.ok()?.ok()?;
    (id(&answer) == id(question) && !failed(&answer)).then_some(answer)
}

async fn exchange(question: &[u8]) -> io::Result<Bytes> {
    let socket = UdpSocket::bind((PROXY_DNS_SOURCE, 0)).await?;
    socket.connect((DOCKER_DNS, DNS_PORT)).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 4096];
    let len = socket.recv(&mut answer).await?;
    answer.truncate(len);
    Ok(answer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_reads_them() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 10.96.0.10\n  nameserver\t::1\n\
                    nameserver 10.96.0.10\nnameserver nonsense\noptions ndots:5\n";
        let expected: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(listed(text), expected);
    }

    #[test]
    fn what_docker_does_not_know_goes_to_the_targets_first_name_server() {
        let names = Names { nameservers: vec!["127.0.0.11".parse().unwrap()], embedded: true };
        let via = SocketAddr::new(DNS_VIA_PROXY.into(), 53);
        assert_eq!(names.remote(via), "127.0.0.11:53".parse().unwrap());
        assert!(!names.ask_docker(via), "it would ask us again");
        let rewritten = "127.0.0.11:40123".parse().unwrap();
        assert!(names.ask_docker(rewritten));
        assert_eq!(names.remote(rewritten), "127.0.0.11:53".parse().unwrap());
    }

    #[test]
    fn the_users_hosts_stand_above_the_targets() {
        let text = hosts(&["10.0.0.1\tdb".into()], b"10.0.0.2\tdb\n");
        assert_eq!(text, b"10.0.0.1\tdb\n10.0.0.2\tdb\n");
    }

    #[test]
    fn an_answer_is_judged_by_its_header_alone() {
        let answer = |rcode: u8| [0, 7, 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0];
        assert!(!failed(&answer(0)));
        assert!(failed(&answer(3)), "NXDOMAIN");
        assert!(!failed(&[1, 2, 3]), "no answer at all is not judged");
        assert_eq!(id(&answer(0)), Some([0, 7]));
    }
}
