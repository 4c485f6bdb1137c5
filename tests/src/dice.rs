//! Numbers that nobody chose, and that can be had again.

use std::time::{SystemTime, UNIX_EPOCH};

/// A linear congruential generator (Knuth's MMIX).
pub struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// Those of `DICE` in the environment, or new ones.
    #[must_use]
    pub fn of_now() -> Self {
        let told = std::env::var("DICE").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = told.unwrap_or(u64::from(now.subsec_nanos()));
        Self { seed, state: seed }
    }

    /// What `DICE` is set to for the same numbers.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % limit
    }
}
