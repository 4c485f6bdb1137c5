//! What is no TCP and no UDP: pings are carried, and the rest is refused aloud.

use anyhow::{Result, ensure};
use mirrord_tests::lab::{DEBIAN, Lab};
use mirrord_tests::scene::Scene;
use mirrord_tests::wait;

const PING: &str = include_str!("../apps/ping.py");

#[test]
fn pings_are_answered_by_whom_the_target_can_reach_and_refused_as_there() -> Result<()> {
    let Some(lab) = Lab::open("pings")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let peer = scene.client.address()?;
    let unused = format!("{}.251", peer.rsplit_once('.').map_or("", |(net, _)| net));
    let words = ["python3", "-c", PING, &peer, &unused, "198.51.100.7"];
    let network = format!("container:{}", scene.target.name);
    let run = ["run", "--rm", "--network", &network, DEBIAN];
    let there = lab.docker.run(&[&run[..], &words[..]].concat())?;
    let here = scene.mirrord().finish(DEBIAN, &words)?;
    ensure!(there.contains(&format!("{peer} answers")), "{there}");
    assert_eq!(here.stdout.trim(), there.trim(), "{}", here.stderr);
    Ok(())
}

#[test]
fn what_is_not_carried_is_refused_at_once_and_told_in_one_line() -> Result<()> {
    let Some(lab) = Lab::open("protocols that are not carried")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let app = "\
import errno, socket, sys, time
def tried(kind, protocol, to):
    try:
        s = socket.socket(socket.AF_INET, kind, protocol)
        for _ in range(3):
            try: s.sendto(b'x', (to, 9))
            except OSError as e: name = errno.errorcode[e.errno]
            else: name = 'sent'
        print(protocol, to, name, flush=True)
        return s
    except OSError as e:
        print(protocol, 'socket', errno.errorcode[e.errno], flush=True)
kept = [tried(socket.SOCK_RAW, 99, '198.51.100.7'), tried(socket.SOCK_DGRAM, 136, '198.51.100.7'),
    tried(socket.SOCK_RAW, 99, '127.0.0.1')]
time.sleep(2)
";
    let here = scene.mirrord().finish(DEBIAN, &["python3", "-c", app])?;
    let said: Vec<&str> = here.stdout.lines().collect();
    assert_eq!(
        said,
        ["99 198.51.100.7 ENETUNREACH", "136 198.51.100.7 ENETUNREACH", "99 127.0.0.1 sent"],
        "{}",
        here.stderr
    );
    for what in ["IP protocol 99 through a raw socket", "UDP-Lite"] {
        let lines = here.stderr.lines().filter(|line| line.contains(what)).count();
        assert_eq!(lines, 1, "{what}: {}", here.stderr);
    }
    wait::until_true("the original", || Ok(scene.answers(80)?["name"] == "original"))
}
