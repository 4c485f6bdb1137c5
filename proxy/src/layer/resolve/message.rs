//! Questions to a name server and its answers (RFC 1035).

use std::net::IpAddr;

use bytes::Bytes;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use mirrord_protocol::layer::Cause;

/// TYPE of an IPv4 address.
pub(super) const A: u16 = 1;
/// TYPE of an IPv6 address (RFC 3596).
pub(super) const AAAA: u16 = 28;
/// CLASS of the Internet.
pub(super) const IN: u16 = 1;
/// Bytes of the header.
const HEADER: usize = 12;
/// A chain of aliases is followed so far.
const LONGEST_CHAIN: usize = 16;
/// Seconds that an answer of ours may be kept.
const TTL: u32 = 5;
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

/// A name's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) canonical: String,
}

/// A question, ready to be sent.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) bytes: Bytes,
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) bytes: Bytes,
}

impl Question {
    /// `None` for what can be no domain name.
    pub(super) fn new(name: &str, kind: u16, class: u16) -> Option<Self> {
        let mut query = Query::query(domain(name)?, RecordType::from(kind));
        query.set_query_class(DNSClass::from(class));
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(query);
        Some(Self { bytes: message.to_vec().ok()?.into() })
    }

    /// Whether an answer is one to this question; RFC 5452, section 9.1.
    pub(super) fn is_answered_by(&self, answer: &Answer) -> bool {
        let bytes = &answer.bytes;
        if bytes.len() < HEADER || bytes[..2] != self.bytes[..2] || bytes[2] & 0x80 == 0 {
            return false;
        }
        // A server that could not even read the question may repeat none of it.
        let count = u16::from_be_bytes([bytes[4], bytes[5]]);
        if count == 0 {
            return answer.code() != NO_ERROR;
        }
        let asked = &self.bytes[HEADER..];
        bytes
            .get(HEADER..HEADER + asked.len())
            .is_some_and(|repeated| repeated.eq_ignore_ascii_case(asked))
    }
}

impl Answer {
    fn code(&self) -> u8 {
        self.bytes.get(3).map_or(SERVER_FAILURE, |byte| byte & 0xf)
    }

    /// Whether it was cut off, so that TCP must be asked.
    pub(super) fn is_truncated(&self) -> bool {
        self.bytes.get(2).is_some_and(|byte| byte & 2 != 0)
    }

    /// Whether another server may know better.
    pub(super) fn is_no_help(&self) -> bool {
        matches!(self.code(), SERVER_FAILURE | NOT_IMPLEMENTED | REFUSED)
    }

    /// Why there is nothing in it.
    pub(super) fn cause(&self) -> Option<Cause> {
        let records = self.bytes.get(6..8).is_some_and(|count| count != [0, 0]);
        match self.code() {
            NO_ERROR if records => None,
            NO_ERROR => Some(Cause::NoData),
            NAME_ERROR => Some(Cause::NotFound),
            SERVER_FAILURE => Some(Cause::TryAgain),
            _ => Some(Cause::Failed),
        }
    }

    /// The addresses at the end of the name's aliases.
    pub(super) fn addresses(&self, name: &str) -> Option<Found> {
        let message = Message::from_vec(&self.bytes).ok()?;
        let mut owner = domain(name)?;
        for _ in 0..LONGEST_CHAIN {
            let records = message.answers.iter().filter(|record| record.name == owner);
            let mut alias = None;
            let mut addresses = Vec::new();
            for record in records {
                match &record.data {
                    RData::A(ip) => addresses.push(IpAddr::V4(ip.0)),
                    RData::AAAA(ip) => addresses.push(IpAddr::V6(ip.0)),
                    RData::CNAME(next) => alias = Some(next.0.clone()),
                    _ => {}
                }
            }
            if !addresses.is_empty() {
                let canonical = owner.to_ascii().trim_end_matches('.').to_owned();
                return Some(Found { addresses, canonical });
            }
            owner = alias?;
        }
        None
    }
}

/// A question that a resolver of the app has sent by itself.
#[derive(Debug)]
pub(super) struct Asked {
    message: Message,
    query: Query,
}

impl Asked {
    /// `None` for what asks no single thing of the Internet.
    pub(super) fn of(question: &[u8]) -> Option<Self> {
        let mut message = Message::from_vec(question).ok()?;
        let query = message.queries.pop().filter(|_| message.queries.is_empty())?;
        message.add_query(query.clone());
        (query.query_class() == DNSClass::IN).then_some(Self { message, query })
    }

    /// What for, without the last dot.
    pub(super) fn name(&self) -> String {
        self.query.name().to_ascii().trim_end_matches('.').to_owned()
    }

    pub(super) fn kind(&self) -> u16 {
        self.query.query_type().into()
    }

    /// The answer with these addresses.
    pub(super) fn addresses(self, addresses: &[IpAddr]) -> Option<Bytes> {
        let name = self.query.name().clone();
        let records = addresses.iter().filter_map(|ip| {
            let data = match (ip, self.kind()) {
                (IpAddr::V4(ip), A) => RData::A((*ip).into()),
                (IpAddr::V6(ip), AAAA) => RData::AAAA((*ip).into()),
                _ => return None,
            };
            Some(Record::from_rdata(name.clone(), TTL, data))
        });
        let records = records.collect();
        self.with(records)
    }

    /// The answer to another name's question: this one is its alias.
    pub(super) fn alias(self, of: &str, answer: &Answer) -> Option<Bytes> {
        let alias = RData::CNAME(CNAME(domain(of)?));
        let mut records = vec![Record::from_rdata(self.query.name().clone(), TTL, alias)];
        records.extend(Message::from_vec(&answer.bytes).ok()?.answers);
        self.with(records)
    }

    fn with(self, records: Vec<Record>) -> Option<Bytes> {
        let mut message = self.message.into_response();
        message.metadata.recursion_available = true;
        message.add_answers(records);
        Some(message.to_vec().ok()?.into())
    }
}

/// Any bytes but dots may stand in a label, as resolvers have it.
fn domain(name: &str) -> Option<Name> {
    let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::A as AData;

    use super::*;

    fn answer(question: &Question, records: &[(&str, RData)]) -> Answer {
        let mut message = Message::from_vec(&question.bytes).unwrap().into_response();
        for (name, data) in records {
            message.add_answer(Record::from_rdata(domain(name).unwrap(), 60, data.clone()));
        }
        Answer { bytes: message.to_vec().unwrap().into() }
    }

    fn alias(to: &str) -> RData {
        RData::CNAME(CNAME(domain(to).unwrap()))
    }

    #[test]
    fn aliases_are_followed_and_strangers_are_not() {
        let question = Question::new("www.Example.org", A, IN).unwrap();
        let address = RData::A(AData::new(10, 0, 0, 7));
        let answer = answer(
            &question,
            &[
                ("www.example.org", alias("a.cdn.example")),
                ("b.cdn.example", address.clone()),
                ("a.cdn.example", alias("b.cdn.example")),
                ("evil.example", RData::A(AData::new(6, 6, 6, 6))),
            ],
        );
        assert!(question.is_answered_by(&answer));
        assert_eq!(answer.cause(), None);
        let found = answer.addresses("www.Example.org").unwrap();
        assert_eq!(found.canonical, "b.cdn.example");
        assert_eq!(found.addresses, [IpAddr::from([10, 0, 0, 7])]);
    }

    #[test]
    fn a_ring_of_aliases_ends() {
        let question = Question::new("a", A, IN).unwrap();
        let answer = answer(&question, &[("a", alias("b")), ("b", alias("a"))]);
        assert_eq!(answer.addresses("a"), None);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let question = Question::new("a.example", A, IN).unwrap();
        let other = Question::new("b.example", A, IN).unwrap();
        let mut theirs = answer(&other, &[]).bytes.to_vec();
        theirs[..2].copy_from_slice(&question.bytes[..2]);
        assert!(!question.is_answered_by(&Answer { bytes: theirs.into() }));
        assert!(!question.is_answered_by(&Answer { bytes: question.bytes.clone() }), "no answer");
        assert!(!question.is_answered_by(&Answer { bytes: Bytes::from_static(b"x") }));
    }

    #[test]
    fn causes_are_those_of_the_resolver() {
        let question = Question::new("a", A, IN).unwrap();
        let with = |code: u8| {
            let mut bytes = answer(&question, &[]).bytes.to_vec();
            bytes[3] |= code;
            Answer { bytes: bytes.into() }.cause()
        };
        let expected = [Cause::NoData, Cause::Failed, Cause::TryAgain, Cause::NotFound].map(Some);
        assert_eq!([0, 1, 2, 3].map(with), expected);
    }

    #[test]
    fn a_short_name_is_the_alias_of_the_whole_one() {
        let asked = Question::new("db", A, IN).unwrap();
        let whole = Question::new("db.example", A, IN).unwrap();
        let found = answer(&whole, &[("db.example", RData::A(AData::new(10, 0, 0, 7)))]);
        let reply = Asked::of(&asked.bytes).unwrap().alias("db.example", &found).unwrap();
        let reply = Answer { bytes: reply };
        assert!(asked.is_answered_by(&reply));
        assert_eq!(reply.addresses("db").unwrap().addresses, [IpAddr::from([10, 0, 0, 7])]);
        let all = ["10.0.0.8".parse().unwrap(), "::1".parse().unwrap()];
        let reply = Answer { bytes: Asked::of(&asked.bytes).unwrap().addresses(&all).unwrap() };
        assert!(asked.is_answered_by(&reply));
        assert_eq!(reply.addresses("db").unwrap().addresses, [IpAddr::from([10, 0, 0, 8])]);
    }

    #[test]
    fn what_can_be_no_name_is_none() {
        assert!(Question::new(&"a".repeat(64), A, IN).is_none());
        assert!(Question::new("a..b", A, IN).is_none());
        assert!(Question::new("_sip._tcp.example", 33, IN).is_some());
    }
}
