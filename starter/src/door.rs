//! Who comes: peers that have yet to show the session's token. None of them can make another wait.

use crate::digest::{Expected, Hasher};
use crate::sys::{self, Errno, Fd};
use crate::wire::{MOST_STRANGERS, TOKEN_LENGTH, TOKEN_PATIENCE_MS};

/// A peer without a token so far.
struct Stranger {
    peer: Fd,
    shown: [u8; TOKEN_LENGTH],
    length: usize,
    until: u64,
}

/// What a stranger has shown.
enum Shown {
    TooLittle,
    Wrong,
    Token,
}

impl Stranger {
    fn hear(&mut self, token: &Expected) -> Shown {
        match sys::read(&self.peer, self.shown.get_mut(self.length..).unwrap_or(&mut [])) {
            Err(Errno::AGAIN) => return Shown::TooLittle,
            Err(_) | Ok(0) => return Shown::Wrong,
            Ok(more) => self.length += more,
        }
        if self.length < TOKEN_LENGTH {
            Shown::TooLittle
        } else if token.is(Hasher::of(&self.shown)) {
            Shown::Token
        } else {
            Shown::Wrong
        }
    }
}

/// Those who came and are not known yet.
pub struct Door {
    token: Expected,
    strangers: [Option<Stranger>; MOST_STRANGERS],
}

impl Door {
    /// Nobody yet.
    pub fn new(token: Expected) -> Self {
        Self { token, strangers: [const { None }; MOST_STRANGERS] }
    }

    /// Their descriptors, a place each.
    pub fn peers(&self) -> impl Iterator<Item = Option<&Fd>> {
        self.strangers.iter().map(|stranger| stranger.as_ref().map(|stranger| &stranger.peer))
    }

    /// When the next of them has had its time.
    pub fn next_end(&self) -> Option<u64> {
        self.strangers.iter().flatten().map(|stranger| stranger.until).min()
    }

    /// Sends those away who have had their time.
    pub fn send_late_ones_away(&mut self, now: u64) {
        for place in &mut self.strangers {
            if place.as_ref().is_some_and(|stranger| stranger.until <= now) {
                *place = None;
            }
        }
    }

    /// Lets everyone in who waits outside; where there is no room the longest there goes.
    pub fn admit(&mut self, listener: &Fd, now: u64) {
        for _ in 0..MOST_STRANGERS {
            let Ok(peer) = sys::accept(listener) else { return };
            // An empty place counts as the longest there.
            let place = self
                .strangers
                .iter_mut()
                .min_by_key(|place| place.as_ref().map_or(0, |stranger| stranger.until));
            if let Some(place) = place {
                let until = now + TOKEN_PATIENCE_MS;
                *place = Some(Stranger { peer, shown: [0; TOKEN_LENGTH], length: 0, until });
            }
        }
    }

    /// Hears the one in a place; returns it if it has the token.
    pub fn hear(&mut self, place: usize) -> Option<Fd> {
        let place = self.strangers.get_mut(place)?;
        match place.as_mut()?.hear(&self.token) {
            Shown::TooLittle => None,
            Shown::Wrong => {
                *place = None;
                None
            }
            Shown::Token => place.take().map(|stranger| stranger.peer),
        }
    }
}
