//! The same line with and without `mirrord` in front, and what differs.
//!
//! ```text
//!   line ─┬─ docker LINE ───────────────► Outcome ─┐
//!         └─ mirrord -t TARGET docker LINE ► Outcome ┴─► differences, but for those that are meant
//! ```

mod meant;
mod outcome;
mod words;

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::lab::{Container, DEBIAN, Lab, PROBE};
use crate::wait;
pub use words::{Row, rows};

/// How many lines run at a time.
const AT_A_TIME: usize = 4;
/// Where an engine is if nobody says so.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// A variable of the target's, which every app gets beside its own.
const VARIABLE: &str = "FROM_TARGET=1";

/// A target, and what lines speak of.
pub struct Stage<'lab> {
    lab: &'lab Lab,
    target: Container<'lab>,
    _peer: Container<'lab>,
    folder: TempDir,
    words: Vec<(&'static str, String)>,
}

impl<'lab> Stage<'lab> {
    /// Sets it up.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn open(lab: &'lab Lab) -> Result<Self> {
        let inner = lab.network("inner")?;
        let target = lab.container("target").on(&inner).with(["-e", VARIABLE]).probe()?;
        let peer = lab.container("peer").with(["-v", "/shared"]).probe()?;
        let folder = tempfile::tempdir()?;
        for (name, content) in FILES {
            fs::write(folder.path().join(name), content)?;
        }
        let (user, second) = (lab.network("user")?, lab.network("second")?);
        let subnet6 = subnet_of_six();
        let range = format!("{subnet6}::/64");
        let six = lab.network_with("six", &["--ipv6", "--subnet", &range])?;
        let words = vec![
            ("{debian}", DEBIAN.to_owned()),
            ("{probe}", PROBE.to_owned()),
            ("{host}", std::env::var("DOCKER_HOST").unwrap_or_else(|_| SOCKET.to_owned())),
            ("{dir}", folder.path().display().to_string()),
            ("{volume}", lab.volume("volume")?),
            ("{subnet}", subnet_of(lab, &user)?),
            ("{subnet6}", subnet6),
            ("{six}", six),
            ("{user}", user),
            ("{second}", second),
            ("{peer}", peer.name.clone()),
            ("{target}", target.name.clone()),
        ];
        Ok(Self { lab, target, _peer: peer, folder, words })
    }

    /// Runs each line both ways.
    ///
    /// # Errors
    /// If some differ; the message says in what.
    pub fn compare(&self, rows: &[Row]) -> Result<()> {
        let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..AT_A_TIME {
                scope.spawn(|| {
                    while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let told = match self.differences(row) {
                            Ok(differences) => differences.join("\n  "),
                            Err(error) => format!("{error:#}"),
                        };
                        if !told.is_empty() {
                            let told = format!("{}\n  {told}", row.text);
                            wrong
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner)
                                .push(told);
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().unwrap_or_default();
        ensure!(
            wrong.is_empty(),
            "{} of {} lines differ:\n{}",
            wrong.len(),
            rows.len(),
            wrong.join("\n")
        );
        self.nothing_is_left()
    }

    fn differences(&self, row: &Row) -> Result<Vec<String>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = self.lab.name(&format!("app{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        self.lab.adopt(&name);
        let mut known = self.words.clone();
        known.push(("{name}", name.clone()));
        let words = row.words(&known);
        let there = outcome::of(self.lab, &name, None, &words, row)?;
        let here = outcome::of(self.lab, &name, Some(&self.target.target()), &words, row)?;
        Ok(meant::differences(&there, &here, row, VARIABLE))
    }

    /// Nothing of a session beside this target is left.
    fn nothing_is_left(&self) -> Result<()> {
        let joined = format!("container:{}", self.target.id()?);
        wait::until_true("no agent to be left", || {
            let agents =
                self.lab.docker.run(&["ps", "-aq", "--filter", "label=mirrord.role=agent"])?;
            for agent in agents.lines() {
                let network = self.lab.docker.inspect(agent, "{{.HostConfig.NetworkMode}}");
                if network.is_ok_and(|network| network == joined) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .with_context(|| self.folder.path().display().to_string())
    }
}

/// The first half of an IPv6 network's addresses, which nobody else has.
fn subnet_of_six() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("fd6d:{:x}:{:x}:{number:x}", process >> 16, process & 0xffff)
}

/// The first three numbers of a network's addresses.
fn subnet_of(lab: &Lab, network: &str) -> Result<String> {
    let subnet = lab.docker.run(&[
        "network",
        "inspect",
        "--format",
        "{{(index .IPAM.Config 0).Subnet}}",
        network,
    ])?;
    let (prefix, _) = subnet.rsplit_once('.').context("an IPv4 network")?;
    Ok(prefix.to_owned())
}

const FILES: [(&str, &str); 5] = [
    ("env", "# names\nFROM_FILE=a b\nHOME\n\nOTHER=x=y\n"),
    ("bad-env", "=nothing\n"),
    ("labels", "from=file\n# no\nother\n"),
    ("hello", "hello from a file\n"),
    (
        "no-mkdir.json",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    ),
];
