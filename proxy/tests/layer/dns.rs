//! A name server that knows little (RFC 1035).

const HEADER: usize = 12;
const NAME_ERROR: u8 = 3;

/// The answer to a question: db.shop.example is 10.1.2.3, only.example has an IPv6 address alone.
pub fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let (name, rest) = name(question.get(HEADER..)?)?;
    let kind = u16::from_be_bytes(rest.first_chunk().copied()?);
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    let v6: [u8; 16] = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let data: &[u8] = match (name.as_str(), kind) {
        ("db.shop.example", 1) => &[10, 1, 2, 3],
        ("only.example", 28) => &v6,
        ("db.shop.example" | "only.example", _) => return Some(answer),
        _ => {
            answer[3] |= NAME_ERROR;
            return Some(answer);
        }
    };
    answer[7] = 1;
    answer.extend([0xc0, HEADER as u8]);
    answer.extend(kind.to_be_bytes());
    answer.extend([0, 1, 0, 0, 0, 60]);
    answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    answer.extend(data);
    Some(answer)
}

fn name(mut bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut labels = Vec::new();
    loop {
        let (len, rest) = bytes.split_first()?;
        let (label, rest) = rest.split_at_checked((*len).into())?;
        bytes = rest;
        if label.is_empty() {
            return Some((labels.join(".").to_lowercase(), bytes));
        }
        labels.push(String::from_utf8_lossy(label).into_owned());
    }
}
