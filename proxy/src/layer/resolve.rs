//! Names as the target resolves them: its hosts file, then its name servers with its search list;
//! resolv.conf(5), hosts(5).

mod conf;
mod exchange;
mod hosts;
mod message;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use mirrord_protocol::control::ProxyConfig;
use mirrord_protocol::frame::Description;
use mirrord_protocol::layer::{Cause, Name, encode_address};

use super::base::Base;
use crate::names;
use conf::Conf;
use exchange::Servers;
use hosts::Hosts;
use message::{A, AAAA, Answer, Asked, Found, IN, Question};

/// Most addresses of one name; what is more is left out.
const MOST_ADDRESSES: usize = 1024;

/// Answers for names.
pub(super) struct Resolver {
    base: Rc<Base>,
    /// None if names are resolved as this machine does.
    like: RefCell<Option<Rc<Target>>>,
}

/// What the target's resolver would read.
#[derive(Debug, Default)]
struct Target {
    conf: Conf,
    hosts: Hosts,
}

impl Resolver {
    pub(super) fn new(base: Rc<Base>) -> Self {
        Self { base, like: RefCell::default() }
    }

    /// Resolves as the first of these targets does from now on.
    pub(super) fn become_like(&self, config: &ProxyConfig, targets: &[&Description]) {
        let like = targets.first().filter(|_| config.remote_dns).map(|first| {
            let hosts = names::hosts(&config.hosts, &first.hosts);
            let resolv_conf = String::from_utf8_lossy(&first.resolv_conf);
            Rc::new(Target {
                conf: Conf::parse(&resolv_conf, &first.hostname),
                hosts: Hosts::parse(&String::from_utf8_lossy(&hosts)),
            })
        });
        self.like.replace(like);
    }

    /// The payload for a name's addresses; `None` if the process shall ask by itself.
    pub(super) async fn resolve(
        &self,
        name: Name,
        v4: bool,
        v6: bool,
    ) -> Option<Result<Vec<u8>, Cause>> {
        let target = self.like.borrow().clone()?;
        Some(match text(&name) {
            Some(name) => self.addresses(&target, name, v4, v6).await.map(|found| encode(&found)),
            None => Err(Cause::NotFound),
        })
    }

    /// The answer to a question as it came; `None` if the process shall ask by itself.
    pub(super) async fn query(
        &self,
        name: Name,
        class: u16,
        kind: u16,
        search: bool,
    ) -> Option<Result<Vec<u8>, Cause>> {
        let target = self.like.borrow().clone()?;
        let Some(name) = text(&name) else { return Some(Err(Cause::NotFound)) };
        let candidates = match search {
            true => target.conf.candidates(name),
            false => vec![name.trim_end_matches('.').to_owned()],
        };
        let asked = self.first(&target, &candidates, async |servers, name| {
            let question = Question::new(name, kind, class).ok_or(Cause::NotFound)?;
            let answer = servers.ask(&question).await?;
            answer.cause().map_or(Ok(answer), Err)
        });
        Some(asked.await.map(|answer| answer.bytes.to_vec()))
    }

    /// The answer to a question that a resolver of the app has sent to a name server of this
    /// machine, where it read other search domains and hosts; `None` if the target's lead nowhere
    /// either.
    pub(super) async fn search(&self, question: &[u8]) -> Option<Bytes> {
        let target = self.like.borrow().clone()?;
        let asked = Asked::of(question)?;
        let (name, kind) = (asked.name(), asked.kind());
        if let Some(found) = target.hosts.find(&name).filter(|_| matches!(kind, A | AAAA)) {
            return asked.addresses(&found.addresses);
        }
        // The name itself has been asked for.
        let mut candidates = target.conf.candidates(&name);
        candidates.retain(|candidate| *candidate != name);
        let found = self.first(&target, &candidates, async |servers, name| {
            let question = Question::new(name, kind, IN).ok_or(Cause::NotFound)?;
            let answer = servers.ask(&question).await?;
            answer.cause().map_or(Ok((name.to_owned(), answer)), Err)
        });
        let (name, answer) = found.await.ok()?;
        asked.alias(&name, &answer)
    }

    async fn addresses(
        &self,
        target: &Target,
        name: &str,
        v4: bool,
        v6: bool,
    ) -> Result<Found, Cause> {
        let wanted = |ip: &IpAddr| if ip.is_ipv4() { v4 } else { v6 };
        if let Some(mut found) = target.hosts.find(name) {
            found.addresses.retain(&wanted);
            if !found.addresses.is_empty() {
                return Ok(found);
            }
        }
        let candidates = target.conf.candidates(name);
        let mut found = self
            .first(target, &candidates, async |servers, name| lookup(servers, name, v4, v6).await)
            .await?;
        found.addresses.truncate(MOST_ADDRESSES);
        Ok(found)
    }

    /// Asks for each name until one has an answer, as res_search(3) does.
    async fn first<T>(
        &self,
        target: &Target,
        candidates: &[String],
        ask: impl AsyncFn(&Servers<'_>, &str) -> Result<T, Cause>,
    ) -> Result<T, Cause> {
        let servers = Servers { base: &self.base, conf: &target.conf };
        let mut worst = Cause::NotFound;
        for name in candidates {
            match ask(&servers, name).await {
                Ok(found) => return Ok(found),
                Err(Cause::NotFound) => {}
                Err(Cause::NoData) => worst = Cause::NoData,
                Err(cause) => return Err(cause),
            }
        }
        Err(worst)
    }
}

async fn lookup(servers: &Servers<'_>, name: &str, v4: bool, v6: bool) -> Result<Found, Cause> {
    let ask = async |kind: u16, wanted: bool| -> Option<Result<Found, Cause>> {
        if !wanted {
            return None;
        }
        let question = Question::new(name, kind, IN);
        let answer = match question {
            None => Err(Cause::NotFound),
            Some(question) => servers.ask(&question).await.and_then(|answer| found(name, &answer)),
        };
        Some(answer)
    };
    let (a, aaaa) = tokio::join!(ask(A, v4), ask(AAAA, v6));
    both(a, aaaa)
}

fn found(name: &str, answer: &Answer) -> Result<Found, Cause> {
    match answer.cause() {
        Some(cause) => Err(cause),
        None => answer.addresses(name).ok_or(Cause::NoData),
    }
}

/// One family's answer is enough; without any, the failure that may pass counts.
fn both(
    a: Option<Result<Found, Cause>>,
    aaaa: Option<Result<Found, Cause>>,
) -> Result<Found, Cause> {
    match (a, aaaa) {
        (Some(Ok(mut a)), Some(Ok(aaaa))) => {
            a.addresses.extend(aaaa.addresses);
            Ok(a)
        }
        (Some(Ok(found)), _) | (_, Some(Ok(found))) => Ok(found),
        (Some(Err(one)), Some(Err(other))) => Err(graver(one, other)),
        (Some(Err(cause)), None) | (None, Some(Err(cause))) => Err(cause),
        (None, None) => Err(Cause::NoData),
    }
}

fn graver(one: Cause, other: Cause) -> Cause {
    let rank = |cause: &Cause| match cause {
        Cause::NotFound => 0,
        Cause::NoData => 1,
        Cause::Failed => 2,
        Cause::TryAgain => 3,
    };
    if rank(&one) >= rank(&other) { one } else { other }
}

fn encode(found: &Found) -> Vec<u8> {
    let count = u16::try_from(found.addresses.len()).unwrap_or(u16::MAX);
    let mut payload = count.to_le_bytes().to_vec();
    for ip in found.addresses.iter().take(count.into()) {
        payload.extend_from_slice(&encode_address(Some(SocketAddr::new(*ip, 0))));
    }
    payload.extend_from_slice(found.canonical.as_bytes());
    payload
}

fn text(name: &Name) -> Option<&str> {
    std::str::from_utf8(name.as_bytes()).ok().filter(|name| !name.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(address: &str) -> Option<Result<Found, Cause>> {
        let addresses = vec![address.parse().unwrap()];
        Some(Ok(Found { addresses, canonical: "db.example".into() }))
    }

    #[test]
    fn one_familys_answer_is_enough() {
        let texts = |found: Result<Found, Cause>| {
            found.map(|found| found.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>())
        };
        assert_eq!(texts(both(some("10.0.0.1"), some("::1"))).unwrap(), ["10.0.0.1", "::1"]);
        assert_eq!(texts(both(some("10.0.0.1"), Some(Err(Cause::TryAgain)))).unwrap().len(), 1);
        let failed = both(Some(Err(Cause::NoData)), Some(Err(Cause::TryAgain)));
        assert_eq!(texts(failed), Err(Cause::TryAgain));
        assert_eq!(texts(both(Some(Err(Cause::NotFound)), None)), Err(Cause::NotFound));
    }

    #[test]
    fn addresses_are_written_as_the_library_reads_them() {
        let found = some("10.0.0.1").unwrap().unwrap();
        let bytes = encode(&found);
        assert_eq!(bytes[..2], [1, 0]);
        assert_eq!(bytes.len(), 2 + mirrord_protocol::layer::ADDRESS_LEN + "db.example".len());
    }
}
