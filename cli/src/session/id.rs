//! Random names and secrets.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use mirrord_protocol::Token;
use serde::{Deserialize, Serialize};

/// A session's id: short, random, in every name and label that we create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

impl SessionId {
    /// A new one.
    pub fn random() -> io::Result<Self> {
        Ok(Self(hex::<4>()?))
    }

    /// One that was given before.
    pub fn known(text: &str) -> Option<Self> {
        let is_one = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A new secret.
pub fn token() -> io::Result<Token> {
    Ok(Token::new(hex::<32>()?))
}

fn hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_differ() {
        let (one, other) =
            (SessionId::random().expect("random"), SessionId::random().expect("random"));
        assert_eq!(one.to_string().len(), 8);
        assert_ne!(one, other);
    }
}
