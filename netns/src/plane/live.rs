//! A plane that becomes another one while the app runs: the target has moved.

use std::{io, thread};

use super::{
    Plan, Plane, PlaneError,
    change::{Change, ChangeError, Kernel, Object, Undo},
    entries::Entries,
    rule::Family,
};
use crate::{
    PROXY_DNS_SOURCE,
    addresses::{self, InterfaceAddress},
    privileges::{Capability, keep_only},
    sk_lookup::{AddressKey, SkLookupError},
};

impl Plane {
    /// Makes the namespace look like another plan, or leaves it as it was. The sockets stay.
    ///
    /// What is new comes before what is old goes, so that no connection to anywhere finds neither.
    /// Connections of an address that goes end with it; others do not notice.
    ///
    /// # Errors
    /// The plan steers other protocols, cannot work here, or the kernel refuses a change.
    pub fn change(&mut self, plan: &Plan) -> Result<(), PlaneError> {
        if plan.steered() != self.steered {
            return Err(PlaneError::Protocols);
        }
        let mut kernel = Kernel::open().map_err(PlaneError::Read)?;
        let present = addresses::list(&mut kernel.netlink).map_err(PlaneError::Read)?;
        plan.validate(&present)?;
        let before = self.entries.clone();
        let after = plan.entries(&present);
        let mut undo = Undo::default();
        let changed = self.try_change(plan, &present, &after, &mut kernel, &mut undo);
        let Err(error) = changed else {
            self.entries = after;
            return Ok(());
        };
        let mut left = undo.roll_back(&mut kernel);
        let told = before.insert(&mut self.lookup);
        let told = told.and_then(|()| after.without(&before).remove(&mut self.lookup));
        left.extend(told.map_err(ChangeError::of_program).err());
        if left.is_empty() {
            return Err(error);
        }
        Err(PlaneError::NotUndone { source: Box::new(error), left })
    }

    fn try_change(
        &mut self,
        plan: &Plan,
        present: &[InterfaceAddress],
        after: &Entries,
        kernel: &mut Kernel,
        undo: &mut Undo,
    ) -> Result<(), PlaneError> {
        let found = kernel.list().map_err(PlaneError::Read)?;
        let program = |error| PlaneError::Steer(SkLookupError::Program(error));
        after.insert(&mut self.lookup).map_err(program)?;
        for change in changes(&found, &plan.objects(present)) {
            undo.make(change, kernel)?;
        }
        self.entries.without(after).remove(&mut self.lookup).map_err(program)
    }

    /// Whether [`Plane::change`] wants [`Capability::Bpf`] (before Linux 6.0, where BPF is closed
    /// to the unprivileged), or [`Capability::NetAdmin`] is enough.
    ///
    /// Tried on a thread of its own, with an entry that is there already.
    pub fn changes_need_bpf(&mut self) -> bool {
        let trial = || {
            keep_only(&[Capability::NetAdmin])?;
            let entry = AddressKey::from(std::net::IpAddr::from(PROXY_DNS_SOURCE));
            self.lookup.insert("exempt", entry, 1).map_err(io::Error::other)
        };
        let tried = thread::scope(|scope| scope.spawn(trial).join());
        !matches!(tried, Ok(Ok(())))
    }
}

/// The way from what is there to what is wanted: addresses come first and go last, since a route
/// goes with the address that it leaves from.
fn changes(found: &[Object], wanted: &[Object]) -> Vec<Change> {
    let missing = || wanted.iter().filter(|object| !found.contains(object)).cloned();
    let stale = || found.iter().filter(|object| !wanted.contains(object)).cloned();
    let is_address = |object: &Object| matches!(object, Object::Address(_));
    let mut changes: Vec<_> = missing().filter(is_address).map(Change::Add).collect();
    let mut rerouted = Vec::new();
    for object in missing().filter(|object| !is_address(object)) {
        let Object::Route(to) = object else {
            changes.push(Change::Add(object));
            continue;
        };
        let before = stale().find_map(|object| match object {
            Object::Route(from) if Family::of(from) == Family::of(to) => Some(from),
            _ => None,
        });
        changes.push(match before {
            Some(from) => Change::Reroute { from, to },
            None => Change::Add(Object::Route(to)),
        });
        rerouted.extend(before.map(Object::Route));
    }
    let gone = stale().filter(|object| !is_address(object) && !rerouted.contains(object));
    changes.extend(gone.map(Change::Remove));
    changes.extend(stale().filter(is_address).map(Change::Remove));
    changes
}
