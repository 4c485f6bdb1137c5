//! What the app uses that no tunnel carries: the kernel refuses it ("network is unreachable"), and
//! this says so, once for each.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use mirrord_protocol::control::ProxyEvent;

use crate::report::say;

/// How often the app's sockets are looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// Where the kernel lists sockets that are neither TCP nor UDP, and what the lines of each are of.
const LISTS: [(&str, Kind); 5] = [
    ("raw", Kind::Raw),
    ("raw6", Kind::Raw),
    ("udplite", Kind::Named("UDP-Lite")),
    ("udplite6", Kind::Named("UDP-Lite")),
    ("sctp/eps", Kind::Named("SCTP")),
];
/// Protocols of raw sockets that are carried, or are our own: ICMP, ICMPv6, and IPPROTO_RAW, which
/// only writes packets.
const UNTOLD: [u32; 3] = [1, 58, 255];

#[derive(Clone, Copy)]
enum Kind {
    /// Its protocol stands where others have the port.
    Raw,
    Named(&'static str),
}

/// Tells what is not carried, as long as the process lives.
pub(crate) async fn watch() {
    let mut told = BTreeSet::new();
    loop {
        for (list, kind) in LISTS {
            let text = fs::read_to_string(format!("/proc/self/net/{list}")).unwrap_or_default();
            for what in text.lines().skip(1).filter_map(|line| uncarried(kind, line)) {
                if told.insert(what.clone()) {
                    let message = format!(
                        "the app speaks {what}, which is not carried to the target: it is told that \
                         the network is unreachable"
                    );
                    say(&ProxyEvent::Warning { message });
                }
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// What a socket's line is of, if that is to be told.
fn uncarried(kind: Kind, line: &str) -> Option<String> {
    match kind {
        Kind::Named(name) => Some(name.to_owned()),
        Kind::Raw => {
            let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
            let protocol = u32::from_str_radix(port, 16).ok()?;
            let told = !UNTOLD.contains(&protocol);
            told.then(|| format!("IP protocol {protocol} through a raw socket"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_socket_is_told_by_its_protocol_unless_that_is_carried() {
        let line = |protocol| format!("   1: 0100007F:{protocol:04X} 00000000:0000 07 0:0 0:0 0 0");
        let told = uncarried(Kind::Raw, &line(132));
        assert_eq!(told.as_deref(), Some("IP protocol 132 through a raw socket"));
        for carried in UNTOLD {
            assert_eq!(uncarried(Kind::Raw, &line(carried)), None);
        }
        assert_eq!(uncarried(Kind::Raw, "garbage"), None);
        assert_eq!(uncarried(Kind::Named("SCTP"), "x").as_deref(), Some("SCTP"));
    }
}
