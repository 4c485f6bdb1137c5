//! The memory that the proxy writes (`mirrord_protocol::layer::page` says what is where), mapped
//! when it is needed first.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use mirrord_protocol::layer::page as layout;
use mirrord_protocol::layer::{ADDRESS_LEN, Request, Slot, Transport, decode_address};

use crate::proxy;
use crate::settings::settings;
use crate::sys::{self, Errno};

/// The memory, read-only.
#[repr(transparent)]
pub struct Page(u8);

/// How a connection turned out that the proxy makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not known yet.
    Pending,
    /// It stands.
    Connected,
    /// It failed.
    Failed(Errno),
}

/// Whether this process has a layer.
#[derive(Clone, Copy)]
pub enum Presence {
    /// It has none, or is to be left alone.
    Absent,
    /// It has one, and the memory cannot be had: calls that need it fail.
    Unreachable(Errno),
    /// It has one.
    Active(&'static Page),
}

impl Page {
    /// Memory that begins here.
    ///
    /// # Safety
    /// [`layout::LEN`] bytes that may be read for the lifetime.
    pub unsafe fn at<'a>(place: *const u8) -> &'a Self {
        // SAFETY: the caller's promise; the one byte stands for all of them.
        unsafe { &*place.cast() }
    }

    fn bytes<const LEN: usize>(&self, offset: usize) -> [u8; LEN] {
        if offset > layout::LEN.wrapping_sub(LEN) {
            return [0; LEN];
        }
        // SAFETY: it is inside; another process may write there, hence volatile.
        unsafe { (&raw const *self).cast::<u8>().add(offset).cast::<[u8; LEN]>().read_volatile() }
    }

    fn address(&self, offset: usize) -> Option<SocketAddr> {
        decode_address(&self.bytes::<ADDRESS_LEN>(offset))
    }

    fn short(&self, offset: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(offset))).filter(|value| *value != 0)
    }

    /// Whom a slot stands for.
    pub fn remote(&self, slot: Slot) -> Option<SocketAddr> {
        self.address(layout::remote(slot))
    }

    /// The app's end of a slot's connection, as the target's network sees it.
    pub fn local(&self, slot: Slot) -> Option<SocketAddr> {
        self.address(layout::local(slot))
    }

    /// How a slot's connection turned out.
    pub fn outcome(&self, slot: Slot) -> Outcome {
        let place = (&raw const *self).cast::<u8>().wrapping_add(layout::outcome(slot));
        // SAFETY: it is inside, aligned, and never written otherwise than as a whole.
        let outcome = unsafe { AtomicU32::from_ptr(place.cast_mut().cast()) };
        match outcome.load(Ordering::Acquire) {
            layout::PENDING => Outcome::Pending,
            failed if failed > layout::FAILED => {
                Outcome::Failed(Errno(failed.wrapping_sub(layout::FAILED) as i32))
            }
            _ => Outcome::Connected,
        }
    }

    /// The address that the app asked for when its socket got this port.
    pub fn asked(&self, transport: Transport, fake: u16) -> Option<SocketAddr> {
        self.address(layout::asked(transport, fake))
    }

    /// The port at which the app's own socket is that asked for this one.
    pub fn fake(&self, transport: Transport, port: u16) -> Option<u16> {
        self.short(layout::fake(transport, port))
    }

    /// The stand-in of a remote address of datagrams, if it has one.
    pub fn datagram(&self, remote: SocketAddr) -> Option<(Slot, u16)> {
        let port = self.short(layout::DATAGRAMS)?;
        let first = layout::hash(remote);
        let slots = (0..layout::INDEX_PROBES).filter_map(|probe| {
            let entry = self.bytes(layout::index(first.wrapping_add(probe)));
            u32::from_le_bytes(entry).checked_sub(1).map(Slot)
        });
        let mut found = slots.filter(|slot| self.remote(*slot) == Some(remote));
        Some((found.next()?, port))
    }

    /// Whether unix sockets are to be asked about.
    fn concerns_unix(&self) -> bool {
        let [concerns] = self.bytes(layout::CONCERNS);
        concerns & layout::CONCERNS_UNIX != 0
    }

    /// Whether nothing else concerns the layer.
    pub fn concerns_only_unix(&self) -> bool {
        let [concerns] = self.bytes(layout::CONCERNS);
        concerns & layout::CONCERNS_ONLY_UNIX != 0
    }

    /// The unix socket of the target that a number stands for.
    pub fn unix_name<'a>(
        &self,
        number: u32,
        entry: &'a mut [u8; layout::UNIX_LEN],
    ) -> Option<&'a [u8]> {
        *entry = self.bytes(layout::unix(number));
        let (len, name) = entry.split_first()?;
        name.get(..usize::from(*len)).filter(|name| !name.is_empty())
    }

    /// The target's host name, if it is to be seen.
    pub fn hostname(&self) -> Option<&[u8]> {
        self.text(layout::HOSTNAME, layout::HOSTNAME_LEN).filter(|name| !name.is_empty())
    }

    /// Whether a program of this name is left alone; a name as the kernel keeps it may be cut.
    pub fn skips(&self, name: &[u8], cut: bool) -> bool {
        let (mut at, end) = (layout::SKIPPED, layout::SKIPPED + layout::SKIPPED_LEN);
        while let Some(skipped) = self.text(at, end.wrapping_sub(at)).filter(|it| !it.is_empty()) {
            if skipped == name || (cut && name.len() == CUT && skipped.starts_with(name)) {
                return true;
            }
            at = at.wrapping_add(skipped.len()).wrapping_add(1);
        }
        false
    }

    /// The text that ends with a zero within so many bytes.
    fn text(&self, offset: usize, most: usize) -> Option<&[u8]> {
        if offset.checked_add(most).is_none_or(|end| end > layout::LEN) {
            return None;
        }
        // SAFETY: it is inside, and was complete before the memory was handed out.
        let bytes = unsafe {
            core::slice::from_raw_parts((&raw const *self).cast::<u8>().add(offset), most)
        };
        bytes.get(..bytes.iter().position(|byte| *byte == 0)?)
    }
}

/// Bytes of a name that the kernel keeps (TASK_COMM_LEN, without the zero).
const CUT: usize = 15;

/// Null before it was asked for; [`skipped`] if this program is left alone.
static MAPPED: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

fn skipped() -> *mut u8 {
    core::ptr::without_provenance_mut(1)
}

/// Whether this process has a layer for its network.
pub fn presence() -> Presence {
    match mapped() {
        Presence::Active(page) if page.concerns_only_unix() => Presence::Absent,
        presence => presence,
    }
}

/// The memory, if unix sockets are to be asked about.
pub fn unix() -> Option<&'static Page> {
    match mapped() {
        Presence::Active(page) => Some(page).filter(|page| page.concerns_unix()),
        Presence::Absent | Presence::Unreachable(_) => None,
    }
}

fn mapped() -> Presence {
    if settings().is_none() {
        return Presence::Absent;
    }
    let mut mapped = MAPPED.load(Ordering::Acquire);
    if mapped.is_null() {
        match map() {
            Ok(place) => mapped = place,
            Err(errno) => return Presence::Unreachable(errno),
        }
    }
    if mapped == skipped() {
        return Presence::Absent;
    }
    // SAFETY: so much was mapped, and stays.
    Presence::Active(unsafe { Page::at(mapped) })
}

/// The memory; `None` if this process has no layer, or it cannot be had.
pub fn page() -> Option<&'static Page> {
    match presence() {
        Presence::Active(page) => Some(page),
        Presence::Absent | Presence::Unreachable(_) => None,
    }
}

/// Whether the layer works in this process.
pub fn is_active() -> bool {
    page().is_some()
}

#[cold]
fn map() -> Result<*mut u8, Errno> {
    let answer = proxy::ask(&Request::Map, None, &mut [])?;
    let fd = answer.fd.ok_or(Errno::UNREACHABLE)?;
    let place = sys::map_shared(&fd, layout::LEN)?;
    // SAFETY: so much was mapped.
    let page: &'static Page = unsafe { Page::at(place) };
    if u64::from_le_bytes(page.bytes(0)) != layout::MAGIC {
        return Err(Errno::UNREACHABLE);
    }
    let mapped = if is_left_alone(page) { skipped() } else { place.cast_mut() };
    let (release, acquire) = (Ordering::AcqRel, Ordering::Acquire);
    let none = core::ptr::null_mut();
    // Whoever was slower leaves its mapping: another thread may read in it.
    match MAPPED.compare_exchange(none, mapped, release, acquire) {
        Ok(_) => Ok(mapped),
        Err(first) => Ok(first),
    }
}

/// Whether this program's file, or its name as the kernel has it, is on the list.
fn is_left_alone(page: &Page) -> bool {
    let mut path = [0; 1024];
    let file = sys::read_link(c"/proc/self/exe", &mut path)
        .and_then(|path| path.rsplit(|byte| *byte == b'/').next());
    if file.is_some_and(|file| page.skips(file, false)) {
        return true;
    }
    let name = sys::thread_name();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    page.skips(name, true)
}

#[cfg(test)]
pub(crate) mod tests {
    use mirrord_protocol::layer::encode_address;

    use super::*;

    /// Memory as the proxy makes it.
    pub struct Memory(Vec<u32>);

    impl Memory {
        pub fn new() -> Self {
            let mut memory = Self(vec![0; layout::LEN / 4]);
            memory.write(0, &layout::MAGIC.to_le_bytes());
            memory
        }

        pub fn write(&mut self, offset: usize, bytes: &[u8]) {
            // SAFETY: the vector's bytes are ours.
            let all: &mut [u8] =
                unsafe { core::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), layout::LEN) };
            all[offset..offset + bytes.len()].copy_from_slice(bytes);
        }

        pub fn write_address(&mut self, offset: usize, address: &str) {
            let address = address.parse().expect("an address");
            self.write(offset, &encode_address(Some(address)));
        }

        pub fn page(&self) -> &Page {
            // SAFETY: the vector has so many bytes.
            unsafe { Page::at(self.0.as_ptr().cast()) }
        }
    }

    #[test]
    fn what_the_proxy_wrote_is_read() {
        let mut memory = Memory::new();
        let slot = Slot(7);
        memory.write_address(layout::remote(slot), "10.0.0.9:4711");
        memory.write_address(layout::local(slot), "[2001:db8::1]:80");
        memory.write(layout::outcome(slot), &(layout::FAILED + 111).to_le_bytes());
        memory.write_address(layout::asked(Transport::Udp, 40_000), "0.0.0.0:53");
        memory.write(layout::fake(Transport::Udp, 53), &40_000u16.to_le_bytes());
        let page = memory.page();
        assert_eq!(page.remote(slot), "10.0.0.9:4711".parse().ok());
        assert_eq!(page.local(slot), "[2001:db8::1]:80".parse().ok());
        assert_eq!(page.outcome(slot), Outcome::Failed(Errno(111)));
        assert_eq!(page.outcome(Slot(8)), Outcome::Pending);
        assert_eq!(page.asked(Transport::Udp, 40_000), "0.0.0.0:53".parse().ok());
        assert_eq!(page.asked(Transport::Tcp, 40_000), None);
        assert_eq!(page.fake(Transport::Udp, 53), Some(40_000));
        assert_eq!(page.fake(Transport::Tcp, 53), None);
    }

    #[test]
    fn a_known_address_of_datagrams_is_found_behind_others() {
        let mut memory = Memory::new();
        let remote = "10.0.0.9:53".parse().expect("an address");
        memory.write_address(layout::remote(Slot(0)), "10.0.0.8:53");
        memory.write_address(layout::remote(Slot(5)), "10.0.0.9:53");
        let first = layout::hash(remote);
        memory.write(layout::index(first), &1u32.to_le_bytes());
        memory.write(layout::index(first.wrapping_add(3)), &6u32.to_le_bytes());
        assert_eq!(memory.page().datagram(remote), None, "the port is not known");
        memory.write(layout::DATAGRAMS, &5000u16.to_le_bytes());
        assert_eq!(memory.page().datagram(remote), Some((Slot(5), 5000)));
        assert_eq!(memory.page().datagram("10.0.0.7:53".parse().expect("an address")), None);
    }

    #[test]
    fn programs_are_left_alone_by_name() {
        let mut memory = Memory::new();
        memory.write(layout::SKIPPED, b"cargo\0a-name-longer-than-fifteen\0\0");
        let page = memory.page();
        assert!(page.skips(b"cargo", false) && page.skips(b"a-name-longer-than-fifteen", false));
        assert!(page.skips(b"a-name-longer-t", true) && !page.skips(b"a-name-longer-t", false));
        assert!(!page.skips(b"carg", true) && !page.skips(b"", true));
        assert_eq!(page.hostname(), None);
        memory.write(layout::HOSTNAME, b"web-0\0");
        assert_eq!(memory.page().hostname(), Some(&b"web-0"[..]));
    }
}
