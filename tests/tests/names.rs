//! Names are resolved as the target resolves them: its servers, its search domains, its ndots.

use anyhow::{Result, ensure};
use mirrord_tests::lab::{Container, DEBIAN, GO, Lab, MUSL};
use mirrord_tests::mirrord::Mirrord;
use mirrord_tests::wait;

const SERVER: &str = include_str!("../apps/dns.py");

/// A target with a name server of its own.
struct Stage<'lab> {
    lab: &'lab Lab,
    server: Container<'lab>,
    target: Container<'lab>,
    _neighbour: Container<'lab>,
}

impl<'lab> Stage<'lab> {
    /// On a network of its own, the target's resolver is Docker's, which forwards; on the default
    /// bridge its resolv.conf names the server itself.
    fn open(lab: &'lab Lab, user_defined: bool) -> Result<Self> {
        let network = if user_defined { lab.network("inner")? } else { "bridge".to_owned() };
        let server = lab.container("dns").on(&network).start(DEBIAN, &["python3", "-c", SERVER])?;
        wait::until_true("the name server", || Ok(server.logs()?.contains("ready")))?;
        let address = server.address()?;
        let recipe = lab.container("target").on(&network).with([
            "--dns",
            address.as_str(),
            "--dns-search",
            "corp.test",
            "--dns-option",
            "ndots:2",
        ]);
        let target = recipe.probe()?;
        let neighbour = lab.container("neighbour").on(&network).probe()?;
        Ok(Self { lab, server, target, _neighbour: neighbour })
    }

    /// The oracle: the same program in the target's own network.
    fn at_the_target(&self, image: &str, words: &[&str]) -> Result<String> {
        let network = format!("container:{}", self.target.name);
        self.lab.docker.run(&[&["run", "--rm", "--network", &network, image], words].concat())
    }

    fn by_the_app(&self, docker: &[&str], image: &str, words: &[&str]) -> Result<String> {
        let run = Mirrord::new(self.lab, &self.target.target()).docker(docker.to_vec());
        let done = run.finish(image, words)?;
        ensure!(done.code == 0, "{words:?}: {done:?}");
        Ok(done.stdout.trim().to_owned())
    }

    fn same(&self, docker: &[&str], image: &str, words: &[&str], part: &str) -> Result<()> {
        let there = self.at_the_target(image, words)?;
        ensure!(there.contains(part), "{words:?} at the target: {there}");
        let here = self.by_the_app(docker, image, words)?;
        ensure!(here == there, "{words:?}: {here:?} by the app, {there:?} at the target");
        Ok(())
    }
}

const GLIBC: [(&[&str], &str); 3] = [
    (&["getent", "ahostsv4", "orders"], "10.9.8.7"),
    (&["getent", "ahostsv4", "orders.corp.test"], "10.9.8.7"),
    (&["getent", "ahostsv4", "db.eu"], "10.9.8.8"), // ndots:2 puts the search domain first
];

#[test]
fn short_names_follow_the_targets_search_domains_and_ndots() -> Result<()> {
    let Some(lab) = Lab::open("search domains")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab, true)?;
    for (words, part) in GLIBC {
        stage.same(&[], DEBIAN, words, part)?;
    }
    stage.same(&[], GO, &["resolve", "orders"], "10.9.8.7")?;
    stage.same(&[], MUSL, &["resolve", "orders"], "10.9.8.7")?;
    Ok(())
}

#[test]
fn a_target_whose_resolv_conf_names_its_servers_is_followed_from_a_network_with_docker_names()
-> Result<()> {
    let Some(lab) = Lab::open("plain resolv.conf")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab, false)?;
    let own = lab.network("own")?;
    let peer = lab.container("peer").on(&own).alias("peer").probe()?;
    for (words, part) in GLIBC {
        stage.same(&["--network", &own], DEBIAN, words, part)?;
    }
    let found = stage.by_the_app(&["--network", &own], DEBIAN, &["getent", "ahostsv4", "peer"])?;
    ensure!(found.contains(&peer.address()?), "the app's own peers keep their names: {found}");
    Ok(())
}

#[test]
fn every_kind_of_record_comes_back() -> Result<()> {
    let Some(lab) = Lab::open("kinds of records")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab, true)?;
    let script = "dig +short TXT orders.corp.test; dig +short MX corp.test; \
                  dig +short SRV _http._tcp.corp.test; dig +short many.corp.test | sort; \
                  dig +search +short orders; dig nothing.corp.test | grep -o 'status: [A-Z]*'";
    stage.same(&[], DEBIAN, &["sh", "-c", script], "version=7")?;
    stage.same(&[], GO, &["txt", "orders"], "version=7")?;
    let ask =
        "require('dns').promises.resolveSrv('_http._tcp.corp.test').then(r => console.log(r))";
    stage.same(&[], DEBIAN, &["node", "-e", ask], "orders.corp.test")
}

#[test]
fn an_answer_too_large_for_a_datagram_comes_over_tcp() -> Result<()> {
    let Some(lab) = Lab::open("truncated answers")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab, false)?;
    let words = ["dig", "+short", "TXT", "large.corp.test"];
    stage.same(&[], DEBIAN, &words, &"x".repeat(240))?;
    let asked = stage.server.logs()?.matches("query large.corp.test 16 tcp").count();
    assert_eq!(asked, 2, "once by the target, once by the app");
    Ok(())
}

#[test]
fn a_name_that_does_not_exist_fails_at_once() -> Result<()> {
    let Some(lab) = Lab::open("unknown names")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab, true)?;
    let session = Mirrord::new(&lab, &stage.target.target()).probe("app")?;
    let start = std::time::Instant::now();
    let answer = session.app().ask("resolve nothing.corp.test")?;
    assert_eq!(answer["ok"], false, "{answer}");
    assert!(start.elapsed() < std::time::Duration::from_secs(4), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn without_remote_dns_the_targets_names_are_unknown() -> Result<()> {
    let Some(lab) = Lab::open("--no-remote-dns")? else {
        return Ok(());
    };
    let stage = Stage::open(&lab, false)?;
    let with = Mirrord::new(&lab, &stage.target.target())
        .finish(DEBIAN, &["getent", "hosts", "orders"])?;
    assert_eq!(with.code, 0, "{with:?}");
    let without = Mirrord::new(&lab, &stage.target.target())
        .with(["--no-remote-dns"])
        .finish(DEBIAN, &["timeout", "3", "getent", "hosts", "orders"])?;
    assert_ne!(without.code, 0, "{without:?}");
    Ok(())
}
