//! resolv.conf(5).

use std::net::IpAddr;
use std::time::Duration;

/// MAXNS.
const MOST_SERVERS: usize = 3;
/// More than any resolver had before its limit was lifted.
const MOST_DOMAINS: usize = 32;
const MOST_DOTS: usize = 15;
const LONGEST_TIMEOUT: u64 = 30;
const MOST_ATTEMPTS: usize = 5;

/// How a host's resolver asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conf {
    pub(super) servers: Vec<IpAddr>,
    search: Vec<String>,
    /// A name with so many dots is tried as it is first.
    dots: usize,
    /// How long one server may take.
    pub(super) timeout: Duration,
    /// How often all are asked.
    pub(super) attempts: usize,
    /// Questions go over TCP.
    pub(super) tcp: bool,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            tcp: false,
        }
    }
}

impl Conf {
    /// Of a host of this name, whose domain is searched if the file names none.
    pub(super) fn parse(text: &str, hostname: &str) -> Self {
        let mut conf = Self::default();
        let mut search = None;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    let room = conf.servers.len() < MOST_SERVERS;
                    conf.servers.extend(server.filter(|_| room));
                }
                Some("search") => search = Some(domains(words)),
                Some("domain") => search = Some(domains(words.take(1))),
                Some("options") => words.for_each(|word| conf.set(word)),
                _ => {}
            }
        }
        conf.search = search.unwrap_or_else(|| {
            let domain = hostname.split_once('.').map(|(_, domain)| domain);
            domains(domain.into_iter())
        });
        conf
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        match (name, value.parse::<u64>()) {
            ("ndots", Ok(dots)) => self.dots = bounded(dots, MOST_DOTS),
            ("timeout", Ok(seconds)) => {
                self.timeout = Duration::from_secs(seconds.clamp(1, LONGEST_TIMEOUT));
            }
            ("attempts", Ok(attempts)) => self.attempts = bounded(attempts, MOST_ATTEMPTS).max(1),
            ("use-vc", _) => self.tcp = true,
            _ => {}
        }
    }

    /// What is asked for a name, in order, without last dots.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut all: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let at = if dots >= self.dots { 0 } else { all.len() };
        all.insert(at, name.to_owned());
        all
    }
}

fn bounded(value: u64, most: usize) -> usize {
    usize::try_from(value).unwrap_or(most).min(most)
}

/// "." stands for the root, which adds nothing.
fn domains<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let words = words.map(|word| word.trim_end_matches('.').to_owned());
    words.filter(|word| !word.is_empty()).take(MOST_DOMAINS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\n\
                           nameserver 10.96.0.10\noptions ndots:5 timeout:2 attempts:1\n";

    #[test]
    fn a_short_name_is_searched_first_and_a_long_one_last() {
        let conf = Conf::parse(CLUSTER, "web-0");
        assert_eq!(
            conf.candidates("db"),
            ["db.shop.svc.cluster.local", "db.svc.cluster.local", "db.cluster.local", "db"]
        );
        assert_eq!(conf.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(conf.candidates("example.org.").len(), 1);
        assert_eq!((conf.timeout.as_secs(), conf.attempts), (2, 1));
    }

    #[test]
    fn without_a_search_list_the_hosts_own_domain_is_searched() {
        let conf = Conf::parse("nameserver 10.0.0.1\n", "web.example.org");
        assert_eq!(conf.candidates("db"), ["db.example.org", "db"]);
        assert_eq!(Conf::parse("", "web").candidates("db"), ["db"]);
        assert_eq!(Conf::parse("domain a.b c\n", "").candidates("db"), ["db.a.b", "db"]);
        assert_eq!(Conf::parse("search .\n", "x.y").candidates("db"), ["db"]);
    }

    #[test]
    fn what_makes_no_sense_is_passed_over_and_numbers_have_bounds() {
        let text = "nameserver x\nnameserver 1.1.1.1\nnameserver ::1\nnameserver 1.1.1.2\n\
                    nameserver 1.1.1.3\noptions ndots:99 timeout:0 attempts:1000 rotate edns0\n";
        let conf = Conf::parse(text, "");
        assert_eq!(conf.servers.len(), 3);
        assert_eq!((conf.dots, conf.timeout.as_secs(), conf.attempts), (15, 1, 5));
    }
}
