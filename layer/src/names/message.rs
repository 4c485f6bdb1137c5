//! As much of RFC 1035 as is needed to hand a question on and to say what an answer is worth.

use mirrord_protocol::layer::{MAX_NAME, Name};

use super::HostError;

/// Bytes of a header.
pub const HEADER: usize = 12;
/// QR, RD; RA and no error.
const RESPONSE: [u8; 2] = [0x81, 0x80];
const TRUNCATED: u8 = 2;
const MAX_LABEL: usize = 63;
/// The type of a record that names an address (RFC 1035, section 3.3.12).
pub const PTR: u16 = 12;
/// How often a name may go on elsewhere.
const MOST_JUMPS: usize = 64;

fn short(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

/// What res_query(3) says of an answer.
///
/// # Errors
/// It holds none.
pub fn verdict(answer: &[u8]) -> Result<(), HostError> {
    let code = answer.get(3).map_or(u8::MAX, |flags| flags & 15);
    match (code, short(answer, 6)) {
        (0, Some(1..)) => Ok(()),
        (0, Some(0)) => Err(HostError::NoData),
        (2, _) => Err(HostError::TryAgain),
        (3, _) => Err(HostError::NotFound),
        _ => Err(HostError::Failed),
    }
}

/// Says that an answer was cut.
pub fn mark_cut(answer: &mut [u8]) {
    if let Some(flags) = answer.get_mut(2) {
        *flags |= TRUNCATED;
    }
}

/// The one question of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// What the answer must bear as well.
    pub id: [u8; 2],
    /// QNAME, without the last dot.
    pub name: Name,
    /// QTYPE.
    pub kind: u16,
    /// QCLASS.
    pub class: u16,
}

impl Question {
    /// `None` if it is no plain question for a name that can be written as text.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let [high, low, flags, ..] = *message.first_chunk::<HEADER>()?;
        let plain = flags & 0xf8 == 0 && short(message, 4)? == 1 && short(message, 6)? == 0;
        let end = behind_name(message, HEADER).filter(|_| plain)?;
        let name = Name::new(read_name(message, HEADER, &mut [0; MAX_NAME])?)?;
        let class = short(message, end.checked_add(2)?)?;
        Some(Self { id: [high, low], name, kind: short(message, end)?, class })
    }
}

/// Writes the answer that says no, as far as it fits, and says how long it is.
pub fn write_no(question: &Question, error: HostError, answer: &mut [u8]) -> usize {
    let code = match error {
        HostError::NoData => 0,
        HostError::NotFound => 3,
        HostError::TryAgain | HostError::Failed | HostError::Internal => 2,
    };
    let [flags, more] = RESPONSE;
    let head = question.id.into_iter().chain([flags, more | code, 0, 1, 0, 0, 0, 0, 0, 0]);
    let name = question.name.as_bytes();
    let labels = name
        .split(|byte| *byte == b'.')
        .flat_map(|label| core::iter::once(label.len() as u8).chain(label.iter().copied()));
    let tail = question.kind.to_be_bytes().into_iter().chain(question.class.to_be_bytes());
    let bytes = head.chain(labels).chain([0]).chain(tail);
    answer.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    HEADER.wrapping_add(name.len()).wrapping_add(6)
}

/// The name in the first PTR record of an answer, as text.
pub fn pointer<'a>(answer: &[u8], room: &'a mut [u8; MAX_NAME]) -> Option<&'a [u8]> {
    let mut at = HEADER;
    for _ in 0..short(answer, 4)? {
        at = behind_name(answer, at)?.checked_add(4)?;
    }
    for _ in 0..short(answer, 6)? {
        at = behind_name(answer, at)?;
        let data = at.checked_add(10)?;
        if short(answer, at)? == PTR {
            return read_name(answer, data, room);
        }
        at = data.checked_add(short(answer, data.checked_sub(2)?)?.into())?;
    }
    None
}

/// A part of a name.
enum Label {
    End,
    /// The name goes on there.
    Jump(usize),
    /// So many bytes.
    Text(usize),
}

fn label(message: &[u8], at: usize) -> Option<Label> {
    match *message.get(at)? {
        0 => Some(Label::End),
        len if usize::from(len) <= MAX_LABEL => Some(Label::Text(len.into())),
        0xc0.. => Some(Label::Jump(usize::from(short(message, at)? & 0x3fff))),
        _ => None,
    }
}

fn behind_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match label(message, at)? {
            Label::End => return at.checked_add(1),
            Label::Jump(_) => return at.checked_add(2),
            Label::Text(len) => at = at.checked_add(len)?.checked_add(1)?,
        }
    }
}

fn read_name<'a>(message: &[u8], mut at: usize, room: &'a mut [u8; MAX_NAME]) -> Option<&'a [u8]> {
    let (mut len, mut jumps) = (0usize, 0usize);
    loop {
        match label(message, at)? {
            Label::End => return room.get(..len).filter(|name| !name.is_empty()),
            Label::Jump(to) if jumps < MOST_JUMPS => (at, jumps) = (to, jumps.wrapping_add(1)),
            Label::Jump(_) => return None,
            Label::Text(size) => {
                let text = message.get(at.checked_add(1)?..)?.get(..size)?;
                if !text.iter().all(is_of_name) {
                    return None;
                }
                if len > 0 {
                    *room.get_mut(len)? = b'.';
                    len = len.wrapping_add(1);
                }
                let place = room.get_mut(len..)?.get_mut(..size)?;
                place.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
                len = len.wrapping_add(size);
                at = at.checked_add(size)?.checked_add(1)?;
            }
        }
    }
}

/// Whether a byte may stand in a label that is to be written as text.
fn is_of_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(labels: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, 0, 33, 0, 1]);
        bytes
    }

    #[test]
    fn a_question_is_read() {
        let question = Question::parse(&message(&["_http", "_tcp", "db"])).expect("a question");
        assert_eq!(question.id, [0xab, 0xcd]);
        assert_eq!(question.name.as_bytes(), b"_http._tcp.db");
        assert_eq!((question.kind, question.class), (33, 1));
    }

    #[test]
    fn what_is_no_plain_question_is_left_alone() {
        let whole = message(&["a", "b"]);
        for len in 0..whole.len() {
            assert_eq!(Question::parse(&whole[..len]), None, "{len} bytes");
        }
        for (at, byte) in [(2, 0x80), (2, 0x28), (5, 2), (7, 1)] {
            let mut odd = whole.clone();
            odd[at] = byte;
            assert_eq!(Question::parse(&odd), None, "{at}");
        }
        assert_eq!(Question::parse(&message(&["a.b"])), None);
        assert_eq!(Question::parse(&message(&[])), None);
        assert_eq!(Question::parse(&message(&[&"a".repeat(64)])), None);
        assert_eq!(Question::parse(&message(&["a".repeat(60).as_str(); 5])), None);
        let mut pointer = whole;
        pointer[HEADER] = 0xc0;
        assert_eq!(Question::parse(&pointer), None);
    }

    #[test]
    fn an_answer_that_says_no_repeats_the_question() {
        let asked = message(&["_http", "_tcp", "db"]);
        let question = Question::parse(&asked).expect("a question");
        let mut answer = [0; 512];
        let len = write_no(&question, HostError::NotFound, &mut answer);
        assert_eq!(len, asked.len());
        assert_eq!(answer[HEADER..len], asked[HEADER..]);
        assert_eq!(verdict(&answer[..len]), Err(HostError::NotFound));
        assert_eq!(answer[..2], asked[..2]);
        write_no(&question, HostError::NoData, &mut answer);
        assert_eq!(verdict(&answer[..len]), Err(HostError::NoData));
        assert_eq!(write_no(&question, HostError::NoData, &mut [0; 5]), len, "cut");
    }

    /// An answer whose first record is an alias, and whose second one is this.
    fn pointing(data: &[u8]) -> Vec<u8> {
        let mut bytes = message(&["1", "in-addr", "arpa"]);
        bytes[7] = 2;
        bytes.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c");
        bytes.extend(b"\xc0\x0c\0\x0c\0\x01\0\0\0\x3c\0");
        bytes.push(data.len() as u8);
        bytes.extend(data);
        bytes
    }

    #[test]
    fn an_address_has_the_name_of_its_record() {
        let of = |data: &[u8]| {
            let text = |name: &[u8]| String::from_utf8(name.to_vec()).expect("text");
            pointer(&pointing(data), &mut [0; MAX_NAME]).map(text)
        };
        assert_eq!(of(b"\x02db\x04shop\0").as_deref(), Some("db.shop"));
        assert_eq!(of(b"\x02db\xc0\x0e").as_deref(), Some("db.in-addr.arpa"), "it goes on there");
        assert_eq!(of(b"\0"), None, "the root");
        assert_eq!(of(b"\x02d b\0"), None);
        let jump = pointing(b"\0").len() as u8 - 1;
        assert_eq!(of(&[0xc0, jump]), None, "it goes round");
        assert_eq!(pointer(&message(&["a"]), &mut [0; MAX_NAME]), None, "no record");
    }

    proptest::proptest! {
        #[test]
        fn no_message_is_too_odd(bytes: Vec<u8>, at in 0..80usize, value: u8) {
            let _ = (Question::parse(&bytes), pointer(&bytes, &mut [0; MAX_NAME]), verdict(&bytes));
            let mut answer = pointing(b"\x02db\xc0\x0e");
            let len = answer.len();
            answer[at % len] = value;
            let _ = pointer(&answer, &mut [0; MAX_NAME]);
        }

        #[test]
        fn a_question_survives_being_repeated(
            labels in proptest::collection::vec("[a-z0-9_-]{1,40}", 1..6), kind: u16, class: u16
        ) {
            let name = Name::new(labels.join(".").as_bytes()).expect("it fits");
            let question = Question { id: [1, 2], name, kind, class };
            let mut answer = [0; 512];
            let len = write_no(&question, HostError::NotFound, &mut answer);
            answer[2] = 1;
            proptest::prop_assert_eq!(Question::parse(&answer[..len]), Some(question));
        }
    }

    #[test]
    fn an_answer_is_worth_what_its_header_says() {
        let of = |code: u8, answers: u8| {
            verdict(&[0, 0, 0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0])
        };
        assert_eq!(of(0, 2), Ok(()));
        assert_eq!(of(0, 0), Err(HostError::NoData));
        assert_eq!(of(2, 0), Err(HostError::TryAgain));
        assert_eq!(of(3, 0), Err(HostError::NotFound));
        assert_eq!(of(5, 0), Err(HostError::Failed));
        assert_eq!(verdict(&[]), Err(HostError::Failed));
        let mut cut = [0; HEADER];
        mark_cut(&mut cut);
        assert_eq!(cut[2], 2);
        mark_cut(&mut []);
    }
}
