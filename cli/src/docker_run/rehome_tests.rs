use super::*;
use crate::docker_run::parse::{self, Line};

fn line(line: &str) -> Result<(Rehomed, String), RehomeError> {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    let Ok(Line::Run(run)) = parse::line(&crate::docker_run::client::DOCKER, &words) else {
        panic!("{line}")
    };
    let (rehomed, docker) = rehome(&run)?;
    let words: Vec<_> = docker.iter().map(|word| word.to_string_lossy()).collect();
    Ok((rehomed, words.join(" ")))
}

fn refusal(text: &str) -> (String, String) {
    let failure = Failure::from(line(text).expect_err(text));
    (failure.sentence, failure.hint.unwrap_or_default())
}

#[test]
fn what_the_namespace_owner_needs_moves_and_the_rest_stays_in_order() {
    let (rehomed, docker) = line(
        "run -it -v /a:/b -p 8080:80 --name x -h web --domainname shop --dns 1.1.1.1 \
         --dns-search a --dns-opt ndots:2 --add-host db:10.0.0.1 --expose 9 -P --link a:b -e A=1 img",
    )
    .expect("a good line");
    assert_eq!(docker, "--interactive --tty --volume=/a:/b --name=x --env=A=1");
    assert_eq!(rehomed.published.len(), 1);
    assert!(rehomed.publish_all);
    assert_eq!(rehomed.exposed[0].to_string(), "9/tcp");
    assert_eq!(rehomed.hostname.as_deref(), Some("web"));
    assert_eq!(rehomed.domainname.as_deref(), Some("shop"));
    assert_eq!((rehomed.dns.len(), rehomed.dns_search.len(), rehomed.dns_options.len()), (1, 1, 1));
    assert_eq!(rehomed.hosts, [("db".to_owned(), "10.0.0.1".to_owned())]);
    assert_eq!(rehomed.links, ["a:b"]);
    assert!(rehomed.networks.is_empty());
}

#[test]
fn addresses_and_aliases_belong_to_the_first_network() {
    let (rehomed, docker) =
        line("run --network shop --network-alias web --ip 10.0.0.9 --network back --link a img")
            .expect("a good line");
    assert_eq!(docker, "");
    assert_eq!(rehomed.networks[0].aliases, ["web"]);
    assert_eq!(rehomed.networks[0].ip.as_deref(), Some("10.0.0.9"));
    assert_eq!(rehomed.networks[0].links, ["a"]);
    assert_eq!(rehomed.links, ["a"], "as docker's client says it twice");
    assert_eq!(rehomed.networks[1], Attachment { name: "back".to_owned(), ..Default::default() });
}

#[test]
fn only_network_sysctls_move() {
    let (rehomed, docker) =
        line("run --sysctl net.core.somaxconn=9 --sysctl kernel.msgmax=1 img").expect("good");
    assert_eq!(rehomed.sysctls, [("net.core.somaxconn".to_owned(), "9".to_owned())]);
    assert_eq!(docker, "--sysctl=kernel.msgmax=1");
}

#[test]
fn add_host_takes_both_separators() {
    for (text, expected) in [
        ("db:10.0.0.1", ("db", "10.0.0.1")),
        ("db=10.0.0.1", ("db", "10.0.0.1")),
        ("db:::1", ("db", "::1")),
        ("db=[::1]", ("db", "::1")),
        ("host.docker.internal:host-gateway", ("host.docker.internal", "host-gateway")),
    ] {
        let (rehomed, _) = line(&format!("run --add-host {text} img")).expect(text);
        let (name, address) = &rehomed.hosts[0];
        assert_eq!((name.as_str(), address.as_str()), expected);
    }
    assert_eq!(
        refusal("run --add-host db img").0,
        "invalid argument \"db\" for \"--add-host\" flag: bad format for add-host: \"db\""
    );
}

#[test]
fn what_is_handled_is_dockers_as_well() {
    assert_eq!(
        line("run -d --restart always --rm=false img").expect("good").1,
        "--detach --restart=always --rm=false"
    );
    assert!(!line("run -P=false img").expect("good").0.publish_all);
}

#[test]
fn what_cannot_be_is_refused_with_a_reason_and_a_way_out() {
    assert!(refusal("run --network host img").0.starts_with("--network host gives"));
    assert!(refusal("run --net none img").0.starts_with("--network none gives"));
    assert!(refusal("run --network container:db img").1.contains("docker network create"));
    assert!(refusal("run --network a --network a img").0.contains("multiple times"));
    assert!(
        refusal("run --network name=a,ip=1.2.3.4 --ip 1.2.3.5 img")
            .0
            .ends_with("cannot specify both --ip and per-network IPv4 address")
    );
}

#[test]
fn a_bad_port_names_the_value_and_the_cause() {
    let failure = Failure::from(line("run -p 80:80:80:80 img").expect_err("bad"));
    assert_eq!(failure.sentence, "invalid argument \"80:80:80:80\" for --publish");
    assert_eq!(failure.causes, ["invalid IP address: 80:80"]);
}
