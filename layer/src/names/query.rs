//! res_query(3) and its likes.

use mirrord_protocol::layer::{Cause, MAX_NAME, Name, Request, Status};

use super::message::{self, HEADER, Question};
use super::{HostError, text};
use crate::page::{self, Presence};
use crate::proxy;
use crate::sys::Errno;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// As typed.
    pub name: &'a [u8],
    /// What res_querydomain(3) puts behind it.
    pub domain: &'a [u8],
    /// CLASS.
    pub class: i32,
    /// TYPE.
    pub kind: i32,
    /// Whether the search domains are tried as well.
    pub search: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The C library's resolver asks.
    Direct,
    /// So many bytes; those that fit are in the buffer.
    Answer(usize),
    /// There is none.
    Missing(HostError),
    /// The proxy could not be asked.
    Failed(Errno),
}

/// Asks the target's name server; an answer that says no is in the buffer as well.
pub fn query(wish: Wish<'_>, room: &mut [u8]) -> Asked {
    let Some((question, search)) = question(wish) else { return Asked::Direct };
    let asked = value(ask(&question, search, room), room);
    if let Asked::Missing(error) = asked {
        message::write_no(&question, error, room);
    }
    asked
}

/// Asks the question of a message; `room` gets the answer to that very message.
pub fn send(message: &[u8], room: &mut [u8]) -> Asked {
    let Some(question) = Question::parse(message) else { return Asked::Direct };
    match ask(&question, false, room) {
        Asked::Missing(error @ (HostError::NotFound | HostError::NoData)) => {
            Asked::Answer(message::write_no(&question, error, room))
        }
        Asked::Answer(len) => {
            if let Some(place) = room.first_chunk_mut() {
                *place = question.id;
            }
            Asked::Answer(len)
        }
        asked => asked,
    }
}

/// What is asked, and whether the search domains are tried; `None` for what is no question.
fn question(wish: Wish<'_>) -> Option<(Question, bool)> {
    let (class, kind) = (u16::try_from(wish.class).ok()?, u16::try_from(wish.kind).ok()?);
    let (name, whole) = text::rooted(wish.name);
    let (domain, _) = text::rooted(wish.domain);
    let search = wish.search && !whole;
    let of = |name| Some((Question { id: [0; 2], name: Name::new(name)?, kind, class }, search));
    if domain.is_empty() {
        return of(name);
    }
    let mut both = [0; MAX_NAME];
    let len = name.len().checked_add(domain.len())?.checked_add(1)?;
    let bytes = name.iter().chain(b".").chain(domain);
    both.get_mut(..len)?.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    of(both.get(..len)?)
}

fn ask(question: &Question, search: bool, room: &mut [u8]) -> Asked {
    if matches!(page::presence(), Presence::Absent) {
        return Asked::Direct;
    }
    let Question { name, class, kind, .. } = *question;
    let request = Request::Query { name, class, kind, search };
    let answer = match proxy::ask(&request, None, room) {
        Ok(answer) => answer,
        Err(Errno::UNREACHABLE) => return Asked::Missing(HostError::TryAgain),
        Err(errno) => return Asked::Failed(errno),
    };
    let whole = answer.reply.payload as usize;
    match answer.reply.status {
        Status::Direct => Asked::Direct,
        Status::Refused => Asked::Missing(Cause::of(answer.reply.value).into()),
        Status::Done if whole < HEADER => Asked::Missing(HostError::Failed),
        Status::Done => {
            if answer.payload < whole {
                message::mark_cut(room);
            }
            Asked::Answer(whole)
        }
    }
}

/// An answer without records is none.
fn value(asked: Asked, room: &[u8]) -> Asked {
    match asked {
        Asked::Answer(_) => message::verdict(room).map_or_else(Asked::Missing, |()| asked),
        _ => asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish<'_> = Wish { name: b"db", domain: b"", class: 1, kind: 33, search: true };

    fn asked(wish: Wish<'_>) -> Option<(String, bool)> {
        let (question, search) = question(wish)?;
        assert_eq!((question.class, question.kind), (1, 33));
        let name = question.name.as_bytes().to_vec();
        Some((String::from_utf8(name).expect("text"), search))
    }

    #[test]
    fn a_name_that_ends_at_the_root_is_searched_nowhere() {
        assert_eq!(asked(WISH), Some(("db".to_owned(), true)));
        assert_eq!(asked(Wish { name: b"db.", ..WISH }), Some(("db".to_owned(), false)));
    }

    #[test]
    fn a_domain_stands_behind_its_name() {
        let wish = Wish { domain: b"shop.example.", search: false, ..WISH };
        assert_eq!(asked(wish), Some(("db.shop.example".to_owned(), false)));
        let long = [b'a'; 251];
        assert!(asked(Wish { name: b"b", domain: &long, ..WISH }).is_some());
        assert!(asked(Wish { name: b"bc", domain: &long, ..WISH }).is_none());
    }

    #[test]
    fn what_is_no_question_is_the_c_librarys() {
        let mut room = [0; 512];
        for wish in [
            Wish { name: b"", ..WISH },
            Wish { name: b".", ..WISH },
            Wish { kind: -1, ..WISH },
            Wish { class: 65_536, ..WISH },
        ] {
            assert_eq!(query(wish, &mut room), Asked::Direct);
        }
        assert_eq!(query(WISH, &mut room), Asked::Direct, "there is no layer here");
        assert_eq!(send(b"rubbish", &mut room), Asked::Direct);
    }

    #[test]
    fn an_answer_that_says_no_is_none() {
        let room = [0, 0, 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(value(Asked::Answer(12), &room), Asked::Missing(HostError::NotFound));
        assert_eq!(value(Asked::Direct, &room), Asked::Direct);
    }
}
