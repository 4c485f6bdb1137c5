//! `bench soak MINUTES`: a session that steals and one that mirrors, worked for a long time.
//!
//! Every minute tells what each process holds: the least of the minute, since only what is never
//! given back grows. The end tells whether anything grew since the first minute, and what failed.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::mirrord::Session;
use crate::processes::{self, Process};
use crate::remote::Probe;
use crate::scene::Scene;
use crate::wait;

const MINUTE: Duration = Duration::from_secs(60);
/// Connections of each kind that live as long as the soak.
const LONG: usize = 20;
/// Until so many minutes have passed, what is kept for idle UDP flows still grows.
const WARM: u64 = 3;
/// What may come and go at the moment of a look, beside a quarter of what there is.
const FILES: usize = 8;
const MEMORY: u64 = 8 << 20;
const MIB: u64 = 1 << 20;

/// What each round does. Nothing that comes back or is counted is taken unchecked.
const OUTGOING: [&str; 7] = [
    "many client:7000 100",
    "upload client:7000 20000000",
    "download client:7000 20000000",
    "udp client:7002 hello",
    "udp-connected client:7002 hello",
    "resolve client",
    "talk 20000",
];
const INCOMING: [&str; 7] = [
    "many TARGET:7000 100",
    "upload TARGET:7000 20000000",
    "download TARGET:7000 20000000",
    "udp TARGET:7002 hello",
    "many TARGET:7001 20",
    "upload TARGET:7001 1000000",
    "talk 20000",
];

/// What a process holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    files: usize,
    sockets: usize,
    memory: u64,
}

/// Datagrams without an answer so far.
static LOST: AtomicUsize = AtomicUsize::new(0);

type Figures = BTreeMap<String, Held>;

/// Soaks for so many minutes; growth is judged if that is more than the first three.
///
/// # Errors
/// If the sessions can't be started, something has grown, or anything failed.
pub fn run(minutes: u64) -> Result<()> {
    let Some(lab) = Lab::open("the soak")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let sessions = start(&scene)?;
    let (mut first, mut last) = (Figures::new(), Figures::new());
    let (mut rounds, mut failures) = (0, 0);
    for minute in 1..=minutes.max(1) {
        let end = Instant::now() + MINUTE;
        let mut least = Figures::new();
        while Instant::now() < end {
            failures += round(&scene, &sessions);
            rounds += 1;
            take_least(&mut least, held(&sessions)?);
        }
        println!("minute {minute}, {rounds} rounds, {failures} failures");
        least.iter().for_each(|(name, held)| println!("  {}", held.line(name)));
        if minute <= WARM {
            first = least.clone();
        }
        last = least;
    }
    let (copies, grown) = (copies(&sessions[1])?, grown(&first, &last));
    grown.iter().for_each(|name| println!("GROWN: {name}"));
    let lost = LOST.load(Ordering::Relaxed);
    println!("{rounds} rounds, {failures} failures, {} grown", grown.len());
    println!("{lost} datagrams sent again, {copies}");
    ensure!(failures == 0 && grown.is_empty(), "the soak has failed");
    Ok(())
}

/// One that steals port 7000, and one that mirrors port 7001; with connections that stay.
fn start<'lab>(scene: &Scene<'lab>) -> Result<[Session<'lab>; 2]> {
    let (client, target) = (scene.client(), scene.target.probe());
    client.must("serve quiet 0.0.0.0:7000 peer")?;
    client.must("serve udp 0.0.0.0:7002 peer")?;
    target.must("serve quiet 0.0.0.0:7001 original")?;
    let stealer = scene.mirrord().with(["--steal"]).probe("stealer")?;
    stealer.app().must("serve quiet 0.0.0.0:7000 local")?;
    stealer.app().must("serve udp 0.0.0.0:7002 local")?;
    let mirror = scene.mirrord().probe("mirror")?;
    mirror.app().must("serve tcp 0.0.0.0:7001 local")?;
    scene.until_whoami("local", 7000)?;
    wait::until("a copy", || {
        client.must(&format!("ask {} whoami", scene.at(7001)))?;
        Ok(mirror.app().events("accept").first().cloned())
    })?;
    for _ in 0..LONG {
        stealer.app().must("hold client:7000 echo")?;
        client.must(&format!("hold {} echo", scene.at(7000)))?;
        client.must(&format!("hold {} echo", scene.at(7001)))?;
    }
    Ok([stealer, mirror])
}

/// Everything once, both ways at the same time; how much of it failed.
fn round(scene: &Scene<'_>, sessions: &[Session<'_>; 2]) -> usize {
    let each = |who: &Probe, commands: &[&str]| {
        let failed = |command: &&&str| {
            let command = command.replace("TARGET", &scene.address);
            let outcome = done(who, &command);
            outcome.inspect_err(|error| println!("FAILED: {error:#}")).is_err()
        };
        commands.iter().filter(failed).count()
    };
    std::thread::scope(|scope| {
        let out = scope.spawn(|| each(sessions[0].app(), &OUTGOING));
        let into = each(scene.client(), &INCOMING);
        into + out.join().unwrap_or(1)
    })
}

fn done(who: &Probe, command: &str) -> Result<()> {
    let told = match command.starts_with("udp") {
        true => datagram(who, command)?,
        false => who.must(command)?,
    };
    let all = command.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
    let whole = match command.split(' ').next() {
        Some("many") => told["intact"].as_u64() == all,
        Some("upload" | "download") => told["bytes"].as_u64() == all && told["intact"] == true,
        _ => true,
    };
    ensure!(whole, "{command}: {told}");
    Ok(())
}

/// A datagram may be lost, as on any network, but not all of three.
fn datagram(who: &Probe, command: &str) -> Result<Value> {
    for _ in 0..2 {
        let told = who.ask(command)?;
        if told["ok"] == true {
            return Ok(told);
        }
        LOST.fetch_add(1, Ordering::Relaxed);
    }
    who.must(command)
}

/// What became of the copies; each that is whole must be so to the byte.
fn copies(mirror: &Session<'_>) -> Result<String> {
    let copies = mirror.app().events("sunk");
    ensure!(copies.iter().all(|copy| copy["intact"] == true), "{copies:?}");
    let said = mirror.stderr();
    let left_out = said.lines().filter(|line| line.contains("left out")).count();
    Ok(format!("{} uploads copied whole, {left_out} words of copies left out", copies.len()))
}

fn held(sessions: &[Session<'_>; 2]) -> Result<Figures> {
    let mut figures = Figures::new();
    for (name, session) in ["stealing", "mirroring"].iter().zip(sessions) {
        for role in ["proxy", "agent"] {
            let process = session.process(role)?;
            figures.insert(format!("{name} {role}"), Held::of(&[process])?);
        }
        let mut family = processes::family(i32::try_from(session.child.id())?);
        family.retain(|process| process.args.first().is_some_and(|word| word.contains("mirrord")));
        figures.insert(format!("{name} CLI"), Held::of(&family)?);
    }
    Ok(figures)
}

fn take_least(least: &mut Figures, now: Figures) {
    for (name, now) in now {
        let known = least.entry(name).or_insert(now);
        known.files = known.files.min(now.files);
        known.sockets = known.sockets.min(now.sockets);
        known.memory = known.memory.min(now.memory);
    }
}

fn grown(first: &Figures, last: &Figures) -> Vec<String> {
    let grown = |(name, now): (&String, &Held)| {
        let before = first.get(name)?;
        let more = now.files > before.files * 5 / 4 + FILES || now.memory > before.memory + MEMORY;
        more.then(|| format!("{} → {}", before.line(name), now.line("")))
    };
    last.iter().filter_map(grown).collect()
}

impl Held {
    fn of(processes: &[Process]) -> Result<Self> {
        let mut held = Self::default();
        for process in processes {
            let folder = format!("/proc/{}/fd", process.pid);
            for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
                let link = entry.and_then(|entry| fs::read_link(entry.path()));
                held.files += 1;
                let is_socket = link.is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
                held.sockets += usize::from(is_socket);
            }
            held.memory += process.rss;
        }
        Ok(held)
    }

    fn line(&self, name: &str) -> String {
        let Self { files, sockets, memory } = self;
        format!("{name:16} {files} files, {sockets} of them sockets, {} MiB", memory / MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_the_last_minute_never_gave_back() {
        let held = |files, memory| Held { files, memory, ..Held::default() };
        let figures = |held| Figures::from([("agent".to_owned(), held)]);
        let mut last = figures(held(100, 40 << 20));
        take_least(&mut last, figures(held(18, 9 << 20)));
        let first = figures(held(10, 8 << 20));
        assert!(grown(&first, &last).is_empty(), "the least of the minute counts");
        assert_eq!(grown(&figures(held(2, 8 << 20)), &last).len(), 1);
        assert_eq!(grown(&figures(held(10, 0)), &last).len(), 1);
    }
}
