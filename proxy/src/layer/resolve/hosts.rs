//! hosts(5).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::Found;

/// Names and their addresses, in the file's order.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Found>);

impl Hosts {
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts = HashMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else { continue };
            let names: Vec<&str> = words.collect();
            let Some(canonical) = names.first() else { continue };
            for name in &names {
                let new = || Found { addresses: Vec::new(), canonical: (*canonical).to_owned() };
                let found = hosts.entry(name.to_ascii_lowercase()).or_insert_with(new);
                if !found.addresses.contains(&ip) {
                    found.addresses.push(ip);
                }
            }
        }
        Self(hosts)
    }

    /// What the file says of a name. Loopback's own is known without it (RFC 6761, section 6.3).
    pub(super) fn find(&self, name: &str) -> Option<Found> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let found = self.0.get(&name).cloned();
        found.or_else(|| {
            let local = name == "localhost" || name.ends_with(".localhost");
            let addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            local.then_some(Found { addresses, canonical: name })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_line_has_its_address_and_the_first_is_canonical() {
        let hosts = Hosts::parse(
            "127.0.0.1 localhost\n10.0.0.2\tDb.Example db # the database\n# 10.0.0.9 x\n\
             fd00::2 db\n10.0.0.2 db\nnonsense y\n10.0.0.3\n",
        );
        let found = hosts.find("DB").unwrap();
        assert_eq!(found.canonical, "Db.Example");
        let expected: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(found.addresses, expected);
        assert_eq!(hosts.find("db.example.").unwrap().addresses.len(), 1);
        assert!(hosts.find("x").is_none() && hosts.find("y").is_none());
        assert_eq!(hosts.find("localhost").unwrap().addresses.len(), 1);
    }

    #[test]
    fn loopback_has_its_name_without_any_file() {
        assert_eq!(Hosts::default().find("app.localhost").unwrap().addresses.len(), 2);
        assert!(Hosts::default().find("notlocalhost").is_none());
    }
}
