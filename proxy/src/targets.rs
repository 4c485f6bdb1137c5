//! Whose place is taken: what is known of each target, and which of them are there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mirrord_protocol::control::TargetIndex;
use mirrord_protocol::frame::Description;

/// A target that stays away so long is no longer stood in for once another one comes: its address
/// may be somebody else's by then.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The targets of a session.
#[derive(Debug, Default)]
pub(crate) struct Targets(BTreeMap<TargetIndex, Known>);

#[derive(Debug)]
struct Known {
    description: Description,
    lost: Option<Instant>,
}

impl Targets {
    /// A target is there and is this.
    pub(crate) fn found(&mut self, target: TargetIndex, description: Description) {
        self.0.insert(target, Known { description, lost: None });
    }

    /// A target is not there any more; it may come back.
    pub(crate) fn lost(&mut self, target: TargetIndex, now: Instant) {
        if let Some(known) = self.0.get_mut(&target) {
            known.lost.get_or_insert(now);
        }
    }

    /// A target that was lost is there as it was.
    pub(crate) fn back(&mut self, target: TargetIndex) {
        if let Some(known) = self.0.get_mut(&target) {
            known.lost = None;
        }
    }

    /// Whether it is known who a target is.
    pub(crate) fn is_known(&self, target: TargetIndex) -> bool {
        self.0.contains_key(&target)
    }

    /// Whether a target is there.
    pub(crate) fn is_there(&self, target: TargetIndex) -> bool {
        self.0.get(&target).is_some_and(|known| known.lost.is_none())
    }

    /// Drops those that have been away for long, and says which.
    pub(crate) fn forget(&mut self, now: Instant) -> Vec<TargetIndex> {
        let gone = |known: &Known| {
            known.lost.is_some_and(|lost| now.saturating_duration_since(lost) > FORGOTTEN)
        };
        let mut forgotten = Vec::new();
        self.0.retain(|target, known| {
            let stays = !gone(known);
            if !stays {
                forgotten.push(*target);
            }
            stays
        });
        forgotten
    }

    /// Whether the first so many are all there, and at least one is.
    pub(crate) fn are_there(&self, first: u16) -> bool {
        (0..first).all(|target| self.is_there(target))
            && self.0.values().any(|known| known.lost.is_none())
    }

    /// What is known, in the order of the targets; the first one lends its names.
    pub(crate) fn descriptions(&self) -> Vec<&Description> {
        self.0.values().map(|known| &known.description).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(hostname: &str) -> Description {
        Description { hostname: hostname.into(), ..Description::default() }
    }

    fn names(targets: &Targets) -> Vec<&str> {
        targets.descriptions().iter().map(|known| known.hostname.as_str()).collect()
    }

    #[test]
    fn the_first_ones_are_waited_for_and_others_are_not() {
        let mut targets = Targets::default();
        assert!(!targets.are_there(0), "nobody is");
        targets.found(1, named("b"));
        targets.found(7, named("h"));
        assert!(!targets.are_there(2) && targets.are_there(0));
        targets.found(0, named("a"));
        assert!(targets.are_there(2));
        targets.lost(1, Instant::now());
        assert!(!targets.are_there(2));
        assert_eq!(names(&targets), ["a", "b", "h"]);
    }

    #[test]
    fn a_target_that_moved_is_described_anew() {
        let mut targets = Targets::default();
        targets.found(0, named("old"));
        targets.lost(0, Instant::now());
        targets.found(0, named("new"));
        assert_eq!(names(&targets), ["new"]);
        assert!(targets.are_there(1));
    }

    #[test]
    fn who_stays_away_is_forgotten_and_who_comes_back_is_not() {
        let (mut targets, now) = (Targets::default(), Instant::now());
        for target in 0..3 {
            targets.found(target, named("x"));
        }
        targets.lost(0, now);
        targets.lost(1, now);
        targets.lost(1, now + FORGOTTEN);
        targets.found(0, named("x"));
        assert!(targets.forget(now + FORGOTTEN).is_empty());
        assert_eq!(targets.forget(now + 2 * FORGOTTEN), [1]);
        assert_eq!(names(&targets).len(), 2);
    }
}
