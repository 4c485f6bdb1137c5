//! Names are the target's, whoever asks for them and however.

use anyhow::{Result, ensure};
use mirrord_tests::lab::{Container, DEBIAN, Lab};
use mirrord_tests::scene::Scene;
use mirrord_tests::toolbox::{self, PYTHON, path};
use mirrord_tests::wait;

const SERVER: &str = include_str!("../../apps/dns.py");

/// A program that asks for `client` prints the client's address on the target's network.
fn finds_the_client(test: &str, words: &[&str]) -> Result<()> {
    let Some(lab) = Lab::open(test)? else {
        return Ok(());
    };
    if !toolbox::all(test, &words[..1])? {
        return Ok(());
    }
    let scene = Scene::open(&lab)?;
    let done = scene.exec().with(["--no-incoming"]).finish(words)?;
    ensure!(done.stdout.trim() == scene.client.address()?, "{words:?}: {done:?}");
    Ok(())
}

const EAI_NONAME: i32 = -2;

/// The error of a name that does not exist, in a container of the target's network.
fn asked_at_the_target(scene: &Scene<'_>) -> Result<i32> {
    const SCRIPT: &str = "import socket
try: socket.getaddrinfo('no-such-name.invalid', None)
except socket.gaierror as error: print(error.errno)";
    let network = format!("container:{}", scene.target.name);
    let words = ["run", "--rm", "--network", &network, DEBIAN, "python3", "-c", SCRIPT];
    Ok(scene.lab.docker.run(&words)?.trim().parse()?)
}

/// Every function of a libc that looks names up.
fn in_c(program: &str) -> Result<()> {
    let Some(lab) = Lab::open("every resolver of C")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let address = scene.client.address()?;
    let ways = [
        "getaddrinfo",
        "gethostbyname",
        "gethostbyname2",
        "gethostbyname_r",
        "res_query",
        "res_search",
    ];
    let program = path(program);
    let each = |name: &str| -> Result<Vec<String>> {
        let line: Vec<_> = ways.iter().map(|way| format!("{program} names {way} {name}")).collect();
        let done = scene.exec().with(["--no-incoming"]).finish(&["sh", "-c", &line.join("; ")])?;
        Ok(done.stdout.lines().map(str::to_owned).collect())
    };
    assert_eq!(each("client")?, vec![address; ways.len()]);
    let unknown = each("no-such-name.invalid")?;
    // Whether there is somebody who says that a name does not exist differs from network to network.
    let (in_words, number) = match asked_at_the_target(&scene)? {
        EAI_NONAME => ("EAI_NONAME", "h_errno 1"),
        _ => ("EAI_AGAIN", "h_errno 2"),
    };
    assert_eq!(unknown[0], in_words);
    assert_eq!(unknown[1..], vec![number; ways.len() - 1]);
    Ok(())
}

#[test]
fn every_function_of_glibc() -> Result<()> {
    in_c("app")
}

#[test]
fn every_function_of_musl() -> Result<()> {
    in_c("app-musl")
}

#[test]
fn python() -> Result<()> {
    let line = "import socket; print(socket.getaddrinfo('client', 80, socket.AF_INET)[0][4][0])";
    finds_the_client("names of Python", &[PYTHON, "-c", line])
}

#[test]
fn getent() -> Result<()> {
    finds_the_client("names of getent", &["sh", "-c", "getent hosts client | cut -d' ' -f1"])
}

#[test]
fn dig_which_sends_its_own_packets() -> Result<()> {
    finds_the_client("names of dig", &["dig", "+short", "client"])
}

#[test]
fn dig_over_tcp() -> Result<()> {
    finds_the_client("names of dig over TCP", &["dig", "+tcp", "+short", "client"])
}

#[test]
fn nodes_lookup() -> Result<()> {
    let line = "require('dns').lookup('client', (error, address) => console.log(error || address))";
    finds_the_client("names of Node", &["node", "-e", line])
}

#[test]
fn the_resolver_of_c_ares_in_node() -> Result<()> {
    let line =
        "require('dns').resolve4('client', (error, found) => console.log(error || found[0]))";
    finds_the_client("names of c-ares", &["node", "-e", line])
}

#[test]
fn gos_own_resolver() -> Result<()> {
    finds_the_client(
        "names of Go's resolver",
        &["env", "GODEBUG=netdns=go", &path("go-cgo"), "resolve", "client"],
    )
}

#[test]
fn the_resolver_of_static_go() -> Result<()> {
    finds_the_client("names of static Go", &[&path("go-static"), "resolve", "client"])
}

#[test]
fn gos_resolver_by_cgo() -> Result<()> {
    finds_the_client(
        "names of Go by cgo",
        &["env", "GODEBUG=netdns=cgo", &path("go-cgo"), "resolve", "client"],
    )
}

/// A target with a name server, search domains and options of its own.
fn at_the_corporation(lab: &Lab) -> Result<(Container<'_>, Container<'_>)> {
    let network = lab.network("inner")?;
    let server = lab.container("dns").on(&network).start(DEBIAN, &["python3", "-c", SERVER])?;
    wait::until_true("the name server", || Ok(server.logs()?.contains("ready")))?;
    let address = server.address()?;
    let own = ["--dns", &address, "--dns-search", "corp.test", "--dns-option", "ndots:2"];
    let target = lab
        .container("target")
        .on(&network)
        .with(own)
        .with(["--hostname", "orders-7", "--add-host", "old-db:10.3.2.1"])
        .probe()?;
    Ok((server, target))
}

#[test]
fn search_domains_options_and_hosts_are_the_targets() -> Result<()> {
    let Some(lab) = Lab::open("the target's resolv.conf")? else {
        return Ok(());
    };
    let (_server, target) = at_the_corporation(&lab)?;
    let program = path("app");
    let exec = || mirrord_tests::exec::Exec::new(&lab, &target.target()).with(["--no-incoming"]);
    for (words, wanted) in [
        (["names", "getaddrinfo", "orders"], "10.9.8.7"),
        (["names", "getaddrinfo", "orders.corp.test"], "10.9.8.7"),
        (["names", "getaddrinfo", "db.eu"], "10.9.8.8"), // ndots:2 puts the search domain first
        (["names", "getaddrinfo", "old-db"], "10.3.2.1"),
        (["names", "gethostbyname", "old-db"], "10.3.2.1"),
        (["names", "res_search", "orders"], "10.9.8.7"),
        (["names", "res_query", "db.eu.corp.test"], "10.9.8.8"),
        (["names", "hostname", "-"], "orders-7 orders-7"),
    ] {
        let done = exec().finish(&[&[program.as_str()], &words[..]].concat())?;
        ensure!(done.stdout.trim() == wanted, "{words:?}: {done:?}");
    }
    let line = "import socket; print(sorted(a[4][0] for a in socket.getaddrinfo('many', 1, 2, 1)))";
    let done = exec().finish(&[PYTHON, "-c", line])?;
    ensure!(done.stdout.matches("10.9.7.").count() == 5, "all addresses: {done:?}");
    Ok(())
}

#[test]
fn names_of_this_machine_are_asked_for_with_no_remote_dns() -> Result<()> {
    let Some(lab) = Lab::open("--no-remote-dns of a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let exec = scene.exec().with(["--no-incoming", "--no-remote-dns"]);
    let done = exec.finish(&[&path("app"), "names", "getaddrinfo", "client"])?;
    ensure!(done.code == 1 && !done.stdout.contains(&scene.client.address()?), "{done:?}");
    Ok(())
}
