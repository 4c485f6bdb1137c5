//! Connections that end, break and fall silent: each end sees what it would see without us.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use mirrord_tests::lab::{Container, DEBIAN, Lab};
use mirrord_tests::mirrord::Mirrord;
use mirrord_tests::wait;

const ENDS: &str = include_str!("../apps/close/ends.py");
const VANISH: &str = include_str!("../apps/close/vanish.py");
const URGENT: &str = include_str!("../apps/close/urgent.py");
const IDLE: &str = include_str!("../apps/close/idle.py");

/// Seconds.
const PAUSE: &str = "40";

/// A peer that is gone is given up within seconds.
const SOON: [&str; 8] = [
    "--sysctl",
    "net.ipv4.tcp_retries2=3",
    "--sysctl",
    "net.ipv4.tcp_keepalive_time=2",
    "--sysctl",
    "net.ipv4.tcp_keepalive_intvl=1",
    "--sysctl",
    "net.ipv4.tcp_keepalive_probes=2",
];

/// A target and another container on its network.
struct Stage<'lab> {
    lab: &'lab Lab,
    target: Container<'lab>,
    far: Container<'lab>,
}

impl<'lab> Stage<'lab> {
    fn open(lab: &'lab Lab) -> Result<Self> {
        Self::open_with(lab, &[])
    }

    fn open_with(lab: &'lab Lab, words: &[&str]) -> Result<Self> {
        let network = lab.network("inner")?;
        let start = |name| {
            let recipe = lab.container(name).on(&network).alias(name).with(words.to_vec());
            recipe.start(DEBIAN, &["sleep", "600"])
        };
        Ok(Self { lab, target: start("target")?, far: start("far")? })
    }

    fn mirrord(&self, mode: &str) -> Mirrord<'lab> {
        Mirrord::new(self.lab, &self.target.target()).with([mode])
    }

    /// A program in the network of a container, for as long as that is held.
    fn beside(&self, name: &str, of: &Container<'_>, words: &[&str]) -> Result<Container<'lab>> {
        let network = format!("container:{}", of.name);
        self.lab.container(name).on(&network).start(DEBIAN, words)
    }

    /// A server in the other container.
    fn serve_far(&self, program: &str) -> Result<Container<'lab>> {
        let server = self.beside("server", &self.far, &python(program, &["serve"]))?;
        wait::until_true("the server", || Ok(server.logs()?.contains("ready")))?;
        Ok(server)
    }
}

fn python<'a>(program: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    [&["python3", "-u", "-c", program], words].concat()
}

/// That both columns have the same lines, and this one among them.
fn same(direct: &str, ours: &str, one: &str) -> Result<()> {
    let differ: Vec<_> =
        direct.lines().zip(ours.lines()).filter(|(direct, ours)| direct != ours).collect();
    let lengths = (direct.lines().count(), ours.lines().count());
    ensure!(differ.is_empty() && lengths.0 == lengths.1, "{lengths:?} {differ:#?}");
    ensure!(direct.lines().any(|line| line.starts_with(one)), "{direct}");
    ensure!(!direct.contains("hangs"), "{direct}");
    Ok(())
}

#[test]
fn a_connection_of_the_app_ends_at_both_ends_as_it_would_beside_the_target() -> Result<()> {
    let Some(lab) = Lab::open("how the app's connections end")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab)?;
    let _server = stage.serve_far(ENDS)?;
    let words = python(ENDS, &["call", "far"]);
    let direct = stage.target.exec(&words)?;
    let ours = stage.mirrord("--no-incoming").finish(DEBIAN, &words)?;
    same(&direct, &ours.stdout, "server resets: IN+ERR+HUP+RDHUP; 0 bytes, then ECONNRESET;")
}

#[test]
fn a_stolen_connection_ends_at_both_ends_as_it_would_at_the_target() -> Result<()> {
    let Some(lab) = Lab::open("how stolen connections end")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab)?;
    let (serve, call) = (python(ENDS, &["serve"]), python(ENDS, &["call", "target"]));
    let server = stage.beside("server", &stage.target, &serve)?;
    let direct = stage.far.exec(&call)?;
    lab.docker.run(&["rm", "-f", &server.name])?;
    let _session = stage.mirrord("--steal").start("app", DEBIAN, &serve)?;
    let ours = stage.far.exec(&call)?;
    same(&direct, &ours, "caller resets: reset | IN+ERR+HUP+RDHUP; 0 bytes, then ECONNRESET;")
}

/// A container's network goes down, and its peers hear nothing of it.
fn take_network_away(lab: &Lab, of: &Container<'_>) -> Result<()> {
    let network = format!("container:{}", of.name);
    let flags = ["run", "--rm", "--network", &network, "--cap-add", "NET_ADMIN", DEBIAN];
    lab.docker.run(&[&flags[..], &["ip", "link", "set", "eth0", "down"]].concat()).map(drop)
}

/// What an app has written so far.
type Output<'a> = Box<dyn Fn() -> Result<String> + 'a>;

/// What the app learns in each way of looking, once its peer has no network any more; `calls` says
/// which of the two has called the other.
fn learned(lab: &Lab, calls: bool, ours: bool) -> Result<BTreeMap<String, String>> {
    let stage = Stage::open_with(lab, &SOON)?;
    let (mode, word) = if calls { ("--no-incoming", "call") } else { ("--steal", "serve") };
    let _server = if calls { Some(stage.serve_far(VANISH)?) } else { None };
    let words = python(VANISH, &[word, "far"]);
    let output: Output<'_> = if ours {
        let app = stage.mirrord(mode).start("app", DEBIAN, &words)?;
        Box::new(move || Ok(app.stdout()))
    } else {
        let app = stage.beside("app", &stage.target, &words)?;
        Box::new(move || app.logs())
    };
    let call = python(VANISH, &["call", "target"]);
    let _caller = if calls { None } else { Some(stage.beside("caller", &stage.far, &call)?) };
    wait::until_true("the connections", || Ok(output()?.contains("connected")))?;
    take_network_away(lab, &stage.far)?;
    wait::until("what is learned", || {
        let split = |line: &str| line.split_once(": ").map(|(a, b)| (a.to_owned(), b.to_owned()));
        let learned: BTreeMap<_, _> = output()?.lines().filter_map(split).collect();
        Ok(Some(learned).filter(|learned| learned.len() == 3))
    })
}

/// Keep-alive is the target's and not the app's, and what it finds is told by a reset: the README
/// says so.
fn learns_of_a_peer_that_is_gone(calls: bool) -> Result<()> {
    let (Some(one), Some(other)) = (Lab::open("a peer that is gone")?, Lab::open("the same")?)
    else {
        return Ok(());
    };
    let (direct, ours) = thread::scope(|scope| {
        let direct = scope.spawn(|| learned(&one, calls, false));
        (direct.join(), learned(&other, calls, true))
    });
    let direct = direct.map_err(|_| anyhow!("a panic"))??;
    for (way, directly) in
        [("is_quiet", "nothing"), ("keeps_alive", "ETIMEDOUT"), ("writes", "ETIMEDOUT")]
    {
        assert_eq!(direct[way], directly, "{direct:?}");
    }
    let ours = ours?;
    assert!(ours.values().all(|learned| learned == "ECONNRESET"), "{ours:?}");
    Ok(())
}

#[test]
fn a_peer_of_the_app_that_is_gone_without_a_word_is_noticed() -> Result<()> {
    learns_of_a_peer_that_is_gone(true)
}

#[test]
fn a_client_that_is_gone_without_a_word_is_noticed() -> Result<()> {
    learns_of_a_peer_that_is_gone(false)
}

#[test]
fn a_connection_that_nobody_uses_for_most_of_a_minute_is_there_as_before() -> Result<()> {
    let Some(lab) = Lab::open("connections that nobody uses")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab)?;
    let app = stage.mirrord("--steal").start("app", DEBIAN, &python(IDLE, &["far", PAUSE]))?;
    let far = stage.beside("caller", &stage.far, &python(IDLE, &["target", PAUSE]))?;
    let answered = format!("word {PAUSE}");
    wait::within(Duration::from_secs(75), "both to be answered", || {
        let both = app.stdout().contains(&answered) && far.logs()?.contains(&answered);
        Ok(both.then_some(()))
    })
}

/// What is sent as urgent comes to whoever asks for it apart as it comes to who does not.
#[test]
fn urgent_bytes_come_in_their_place_among_the_others() -> Result<()> {
    let Some(lab) = Lab::open("urgent bytes")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab)?;
    let _server = stage.serve_far(URGENT)?;
    let words = python(URGENT, &["call", "far"]);
    let direct = stage.target.exec(&words)?;
    ensure!(direct.contains("here apart abcd, urgent x"), "{direct}");
    let ours = stage.mirrord("--no-incoming").finish(DEBIAN, &words)?;
    let inline = direct.replace("abcd, urgent x", "abxcd, urgent Invalid argument");
    assert_eq!(inline.trim(), ours.stdout.trim(), "{}", ours.stderr);
    Ok(())
}
