//! Which slots are in use: every connection and every remote address of datagrams has one.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mirrord_netns::listeners::Scanner;
use mirrord_protocol::layer::{SLOTS, Slot};
use tracing::warn;

/// A slot stands for nothing new for so long: the app may be about to use what it has just asked
/// for.
const REST: Duration = Duration::from_secs(10);
/// How often it is looked which sockets of the app still show a slot.
const PERIOD: Duration = Duration::from_secs(1);

/// The slots of a session.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    /// All from here on were never used.
    next: u32,
    freed: VecDeque<(Slot, Instant)>,
    /// Have rested, and no socket shows them.
    ready: VecDeque<Slot>,
    looked: Option<Instant>,
}

/// A slot that is in use as long as this lives.
#[derive(Debug)]
pub(crate) struct Lease {
    slot: Slot,
    slots: Slots,
}

impl Slots {
    /// Those of a session that has used so many already, these among them still.
    pub(crate) fn new(used: u32, in_use: impl IntoIterator<Item = Slot>) -> (Self, Vec<Lease>) {
        let in_use: HashSet<Slot> = in_use.into_iter().collect();
        let (next, now) = (used.min(SLOTS), Instant::now());
        let freed = (0..next).map(Slot).filter(|slot| !in_use.contains(slot));
        let freed = freed.map(|slot| (slot, now)).collect();
        let slots = Self(Rc::new(RefCell::new(State { next, freed, ..State::default() })));
        let leases = in_use.into_iter().filter(|slot| slot.0 < next);
        let leases = leases.map(|slot| Lease { slot, slots: slots.clone() }).collect();
        (slots, leases)
    }

    /// Takes a slot: one that was never used, else one that no socket of the app shows any more.
    pub(crate) fn take(&self) -> Option<Lease> {
        let slot = self.0.borrow_mut().take(Instant::now(), shown)?;
        Some(Lease { slot, slots: self.clone() })
    }
}

impl State {
    fn take(
        &mut self,
        now: Instant,
        shown: impl FnOnce() -> io::Result<HashSet<Slot>>,
    ) -> Option<Slot> {
        if self.next < SLOTS {
            self.next += 1;
            return Some(Slot(self.next - 1));
        }
        if self.ready.is_empty() {
            self.look(now, shown);
        }
        self.ready.pop_front()
    }

    /// Looks which of those that have rested are shown by no socket.
    fn look(&mut self, now: Instant, shown: impl FnOnce() -> io::Result<HashSet<Slot>>) {
        let since = |then: Instant| now.saturating_duration_since(then);
        let rested = self.freed.partition_point(|(_, freed)| since(*freed) >= REST);
        if rested == 0 || self.looked.is_some_and(|looked| since(looked) < PERIOD) {
            return;
        }
        self.looked = Some(now);
        let shown = match shown() {
            Ok(shown) => shown,
            Err(error) => return warn!(%error, "it can't be seen which slots are free"),
        };
        let (held, free): (Vec<Slot>, Vec<Slot>) =
            self.freed.drain(..rested).map(|(slot, _)| slot).partition(|it| shown.contains(it));
        self.ready.extend(free);
        self.freed.extend(held.into_iter().map(|slot| (slot, now)));
    }
}

/// The slots that sockets on this machine show, whoever has them.
fn shown() -> io::Result<HashSet<Slot>> {
    let sockets = Scanner::open()?.connected()?;
    let slots = sockets.into_iter().flat_map(|ends| {
        let all = [ends.local.ip(), ends.remote.ip()];
        all.into_iter().filter_map(|ip| Slot::of_remote(ip).or_else(|| Slot::of_local(ip)))
    });
    Ok(slots.collect())
}

impl Lease {
    /// Which slot it is.
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slots.0.borrow_mut().freed.push_back((self.slot, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn nothing() -> io::Result<HashSet<Slot>> {
        Ok(HashSet::new())
    }

    #[test]
    fn what_was_never_used_comes_first() {
        let (slots, _) = Slots::new(0, []);
        let first = slots.take().unwrap();
        assert_eq!(first.slot(), Slot(0));
        drop(first);
        assert_eq!(slots.take().unwrap().slot(), Slot(1));
    }

    #[test]
    fn when_all_were_used_those_come_that_rested_and_none_before_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let freed = VecDeque::from([(Slot(7), now), (Slot(3), later)]);
        let mut state = State { next: SLOTS, freed, ..State::default() };
        assert_eq!(state.take(later, nothing), None);
        assert_eq!(state.take(now + REST, nothing), Some(Slot(7)));
        assert_eq!(state.take(now + REST, nothing), None, "the other one rests");
        assert_eq!(state.take(later + REST, nothing), Some(Slot(3)));
        assert_eq!(state.take(later + REST, nothing), None);
    }

    #[test]
    fn what_a_socket_still_shows_is_taken_when_it_does_not_any_more() {
        let now = Instant::now();
        let freed = VecDeque::from([(Slot(7), now), (Slot(3), now)]);
        let mut state = State { next: SLOTS, freed, ..State::default() };
        let seven = || Ok(HashSet::from([Slot(7)]));
        assert_eq!(state.take(now + REST, seven), Some(Slot(3)));
        assert_eq!(state.take(now + REST + PERIOD, seven), None);
        assert_eq!(state.take(now + REST * 2, nothing), Some(Slot(7)));
    }

    #[test]
    fn sockets_show_the_slots_of_both_their_ends() {
        let (local, remote) = (Slot(SLOTS - 2), Slot(SLOTS - 3));
        let peer = TcpListener::bind((remote.remote(), 0)).unwrap();
        let socket = UdpSocket::bind((local.local(), 0)).unwrap();
        socket.connect(peer.local_addr().unwrap()).unwrap();
        let shown = shown().unwrap();
        assert!(shown.contains(&local) && shown.contains(&remote));
    }

    #[test]
    fn a_later_worker_goes_on_where_the_last_one_was() {
        let (slots, leases) = Slots::new(5, [Slot(2), Slot(900)]);
        assert_eq!(leases.iter().map(Lease::slot).collect::<Vec<_>>(), [Slot(2)]);
        assert_eq!(slots.take().unwrap().slot(), Slot(5));
        assert_eq!(slots.0.borrow().freed.len(), 4 + 1);
    }
}
