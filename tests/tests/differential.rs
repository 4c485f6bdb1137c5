//! A `docker run` line does with `mirrord` in front what it does alone.

use anyhow::Result;
use mirrord_tests::differential::{Row, Stage, rows};
use mirrord_tests::lab::Lab;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// How many lines are made up.
const MADE_UP: usize = 100;

#[test]
fn lines_that_work_do_the_same() -> Result<()> {
    compare("lines that work", rows(include_str!("differential/works.txt")))
}

#[test]
fn flags_that_move_mean_the_same_to_the_owner_of_the_network() -> Result<()> {
    compare("lines that move", rows(include_str!("differential/moved.txt")))
}

#[test]
fn lines_that_fail_fail_in_dockers_words_or_better_ones() -> Result<()> {
    compare("lines that fail", rows(include_str!("differential/fails.txt")))
}

#[test]
fn made_up_lines_do_the_same() -> Result<()> {
    compare("made-up lines", made_up())
}

fn compare(what: &str, rows: Vec<Row>) -> Result<()> {
    let Some(lab) = Lab::open(what)? else {
        return Ok(());
    };
    Stage::open(&lab)?.compare(&rows)
}

/// Flags that any line may have, each at most once.
const FLAGS: &[&str] = &[
    "--rm",
    "-i",
    "--init",
    "--read-only",
    "-e A=b",
    "--env=FROM_OUTSIDE",
    "--env-file {dir}/env",
    "-l a=b",
    "--label-file={dir}/labels",
    "-u 1000:7",
    "--group-add 27",
    "-w /tmp",
    "-h given",
    "--domainname example.test",
    "--add-host one:10.1.2.3",
    "--dns-search corp.test",
    "--cap-drop ALL",
    "--cap-add NET_BIND_SERVICE",
    "--security-opt no-new-privileges",
    "-m 128m",
    "--cpus=1.5",
    "-c300",
    "--pids-limit 100",
    "--shm-size 8m",
    "--ulimit nofile=99:100",
    "--oom-score-adj 100",
    "--tmpfs /t:size=1m",
    "-v {dir}:/d:ro",
    "-v /anonymous",
    "--mount type=volume,source={volume},target=/v",
    "--volumes-from {peer}:ro",
    "--network {user}",
    "-p 127.0.0.1::80",
    "--expose 99",
    "-P",
    "--sysctl net.core.somaxconn=77",
    "--sysctl kernel.msgmax=9000",
    "--ipc shareable",
    "--pid host",
    "--stop-signal INT",
    "--stop-timeout=2",
    "--log-driver none",
    "--health-cmd true",
    "--annotation x=y",
    "--pull never",
    "-a stdout",
    "-a stderr",
    "--sig-proxy=false",
];

/// What the app says of itself.
const SCRIPT: &str = "sh -c 'id; pwd; grep -e Cap -e NoNew -e Seccomp: /proc/self/status; \
     env | grep -v HOSTNAME | sort; ulimit -n; ls -d /v /d /t /anonymous /shared 2>&1; \
     touch /x 2>&1; getent hosts one; cat /proc/sys/net/core/somaxconn; echo err >&2; ";

fn made_up() -> Vec<Row> {
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let flags = subsequence(FLAGS.to_vec(), 1..9).prop_shuffle();
    let end = select(vec!["exit 0'", "exit 3'", "kill -9 $$'", "cat' <<< typed in"]);
    let lines = vec((flags, end), MADE_UP..=MADE_UP);
    let lines = lines.new_tree(&mut runner).map(|tree| tree.current()).unwrap_or_default();
    lines
        .into_iter()
        .map(|(flags, end)| Row::of(&format!("run {} {{debian}} {SCRIPT}{end}", flags.join(" "))))
        .collect()
}
