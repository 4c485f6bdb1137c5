//! What a connection comes to, beside the target and in its place: the same, in the same time.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::{Container, DEBIAN, GO, Lab};
use mirrord_tests::mirrord::Mirrord;
use mirrord_tests::wait;

const SERVER: &str = include_str!("../apps/truth/server.py");
const PYTHON: &str = include_str!("../apps/truth/client.py");
const NODE: &str = include_str!("../apps/truth/client.js");

/// A connection attempt is given up after two SYNs: some seconds in the place of two minutes.
const SOON: [&str; 2] = ["--sysctl", "net.ipv4.tcp_syn_retries=1"];

/// Two containers on a network of both families, and what is beyond it.
struct Stage<'lab> {
    lab: &'lab Lab,
    target: Container<'lab>,
    _far: Container<'lab>,
    /// Name, address and port.
    cases: Vec<(&'static str, String, u16)>,
}

impl<'lab> Stage<'lab> {
    fn open(lab: &'lab Lab) -> Result<Self> {
        let network = lab.network_with("inner", &["--ipv6"])?;
        let target =
            lab.container("target").on(&network).with(SOON).start(DEBIAN, &["sleep", "600"])?;
        let far = lab.container("far").on(&network).alias("far");
        let far = far.start(DEBIAN, &["python3", "-u", "-c", SERVER])?;
        wait::until_true("the server", || Ok(far.logs()?.contains("ready")))?;
        let v4 = far.address()?;
        let template = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
        let v6 = lab.docker.inspect(&far.name, template)?;
        let (nobody, lost) = (last(&v4, 250)?, last(&v4, 251)?);
        // What a cluster's network says by routes, rules and neighbours that do not answer.
        let words = [
            // Who is nowhere is known to be before the second SYN is given up.
            "ip ntable change name arp_cache dev eth0 retrans 100",
            "ip route add unreachable 198.51.100.1",
            "ip rule add to 198.51.100.2 unreachable",
            "ip -6 route add unreachable 2001:db8:ffff::1",
            "ip -6 rule add to 2001:db8:ffff::2 unreachable",
            &format!("ip neigh add {lost} lladdr 02:00:00:00:00:99 dev eth0"),
        ]
        .join(" && ");
        let beside = format!("container:{}", target.name);
        let flags = ["run", "--rm", "--network", &beside, "--cap-add", "NET_ADMIN", DEBIAN];
        lab.docker.run(&[&flags[..], &["sh", "-c", &words]].concat())?;
        let case = |name, address: &str, port| (name, address.to_owned(), port);
        let cases = vec![
            case("answers", &v4, 7000),
            case("answers, IPv6", &v6, 7000),
            case("by name", "far", 7000),
            case("refuses", &v4, 7001),
            case("refuses, IPv6", &v6, 7001),
            case("resets", &v4, 7002),
            case("closes", &v4, 7003),
            case("half-closes", &v4, 7004),
            case("no host", "198.51.100.1", 80),
            case("no network", "198.51.100.2", 80),
            case("no host, IPv6", "2001:db8:ffff::1", 80),
            case("no network, IPv6", "2001:db8:ffff::2", 80),
            case("nobody", &nobody, 80),
            case("lost", &lost, 80),
            case("no name", "nobody.invalid", 80),
        ];
        Ok(Self { lab, target, _far: far, cases })
    }

    /// What a program prints beside the target, and what it prints in its place: line by line.
    fn columns(&self, image: &str, words: &[&str]) -> Result<Vec<(String, String)>> {
        let beside = format!("container:{}", self.target.name);
        let name = self.lab.name("direct");
        self.lab.adopt(&name);
        let line = [&["run", "--rm", "--name", &name, "--network", &beside, image], words].concat();
        let direct = self.lab.docker.run(&line)?;
        let mirrord = Mirrord::new(self.lab, &self.target.target()).docker(SOON);
        let ours = mirrord.with(["--no-incoming"]).finish(image, words)?;
        let (direct, ours) = (lines(&direct), lines(&ours.stdout));
        ensure!(!direct.is_empty() && direct.len() == ours.len(), "{direct:#?}\n{ours:#?}");
        Ok(direct.into_iter().zip(ours).collect())
    }

    fn arguments(&self, join: char) -> Vec<String> {
        let argument = |(name, address, port): &(&str, String, u16)| match join {
            ',' => format!("{name}={address},{port}"),
            _ if address.contains(':') => format!("[{address}]:{port}"),
            _ => format!("{address}:{port}"),
        };
        self.cases.iter().map(argument).collect()
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// The address of the same network with that last byte.
fn last(address: &str, byte: u8) -> Result<String> {
    let (network, _) = address.rsplit_once('.').context("an IPv4 address")?;
    Ok(format!("{network}.{byte}"))
}

fn same(columns: Vec<(String, String)>) -> Result<BTreeMap<String, String>> {
    let differ: Vec<_> = columns.iter().filter(|(direct, ours)| direct != ours).collect();
    ensure!(differ.is_empty(), "beside the target, and in its place: {differ:#?}");
    let split = |line: String| line.split_once(": ").map(|(a, b)| (a.to_owned(), b.to_owned()));
    Ok(columns.into_iter().filter_map(|(direct, _)| split(direct)).collect())
}

#[test]
fn python_sees_what_it_would_see_beside_the_target() -> Result<()> {
    let Some(lab) = Lab::open("the truth, Python")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab)?;
    let arguments = stage.arguments(',');
    let words: Vec<&str> =
        ["python3", "-c", PYTHON].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let told = same(stage.columns(DEBIAN, &words)?)?;
    // That the cases are what they are called.
    for (case, outcome) in [
        ("answers python blocking", "connected words, 0 s"),
        ("answers, IPv6 python polled", "connected words, 0 s"),
        ("refuses python polled", "ECONNREFUSED, 0 s"),
        ("refuses, IPv6 python by_asyncio", "ECONNREFUSED, 0 s"),
        ("no host python blocking", "EHOSTUNREACH, 0 s"),
        ("no network python blocking", "ENETUNREACH, 0 s"),
        ("nobody python blocking", "EHOSTUNREACH, 0 s"),
        ("lost python blocking", "ETIMEDOUT, 3 s"),
    ] {
        assert_eq!(told.get(case).map(String::as_str), Some(outcome), "{told:#?}");
    }
    Ok(())
}

#[test]
fn node_and_go_see_what_they_would_see_beside_the_target() -> Result<()> {
    let Some(lab) = Lab::open("the truth, Node and Go")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab)?;
    let arguments = stage.arguments(',');
    let words = ["node", "-e", NODE, "--"].into_iter().chain(arguments.iter().map(String::as_str));
    same(stage.columns(DEBIAN, &words.collect::<Vec<_>>())?)?;
    let addresses = stage.arguments(':');
    let words = ["dial"].into_iter().chain(addresses.iter().map(String::as_str));
    same(stage.columns(GO, &words.collect::<Vec<_>>())?)?;
    Ok(())
}
