//! The memory that every process of the session maps to read: [`mirrord_protocol::layer::page`].

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};

use mirrord_protocol::layer::{ADDRESS_LEN, Slot, Transport, encode_address, page};
use mirrord_protocol::unix::UnixName;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::call::Answer;

const NAME: &str = "mirrord-layer";

/// Why the shared memory can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    /// pwrite(2) failed: there is no memory left.
    #[error("writing to the memory that the app's processes share failed")]
    Write(#[source] io::Error),
}

/// What stands in a slot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ends {
    /// Who is behind [`Slot::remote`].
    pub(crate) remote: Option<SocketAddr>,
    /// The app's own address towards it.
    pub(crate) local: Option<SocketAddr>,
}

/// The memory; only this process can write to it.
#[derive(Debug)]
pub(crate) struct Memory(File);

impl Memory {
    /// The memory in what [`create`] made: empty but for what never changes, or as another worker
    /// has left it.
    pub(crate) fn of(file: File, skipped: &[String]) -> Result<Self, MemoryError> {
        let memory = Self(file);
        memory.write(0, &page::MAGIC.to_le_bytes())?;
        memory.write(page::SKIPPED, &list(skipped))?;
        Ok(memory)
    }

    /// A descriptor that can be read alone.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        File::open(format!("/proc/self/fd/{}", self.0.as_raw_fd())).map(OwnedFd::from)
    }

    /// The same, for a process that has asked for it.
    pub(crate) fn handed_out(&self) -> Answer {
        match self.share() {
            Ok(memory) => Answer::done(0).with(memory),
            Err(error) => Answer::failed(&error),
        }
    }

    /// Sets what concerns the layer: see [`page::CONCERNS`].
    pub(crate) fn set_concerns(&self, concerns: u8) -> Result<(), MemoryError> {
        self.write(page::CONCERNS, &[concerns])
    }

    /// Says which unix socket of the target a number stands for.
    pub(crate) fn set_unix_name(&self, number: u32, name: &UnixName) -> Result<(), MemoryError> {
        let name = name.as_bytes();
        let mut entry = vec![u8::try_from(name.len()).unwrap_or_default()];
        entry.extend_from_slice(name);
        self.write(page::unix(number), &entry)
    }

    /// Those of all numbers, which are counted from 0.
    pub(crate) fn unix_names(&self) -> io::Result<HashMap<UnixName, u32>> {
        let mut names = HashMap::new();
        for number in 0..page::UNIX_NAMES {
            let mut entry = [0; page::UNIX_LEN];
            self.0.read_exact_at(&mut entry, page::unix(number) as u64)?;
            let name = entry.get(1..=usize::from(entry[0])).and_then(UnixName::new);
            let Some(name) = name else { break };
            names.insert(name, number);
        }
        Ok(names)
    }

    /// Sets the host name that the app sees; none: the machine's own.
    pub(crate) fn set_hostname(&self, name: Option<&str>) -> Result<(), MemoryError> {
        let mut bytes = [0; page::HOSTNAME_LEN];
        for (byte, value) in bytes.iter_mut().zip(name.unwrap_or_default().bytes()) {
            *byte = value;
        }
        bytes[page::HOSTNAME_LEN - 1] = 0;
        self.write(page::HOSTNAME, &bytes)
    }

    /// Sets the port of all slots that stand for remote addresses of datagrams.
    pub(crate) fn set_datagrams(&self, port: u16) -> Result<(), MemoryError> {
        self.write(page::DATAGRAMS, &port.to_le_bytes())
    }

    /// Sets what the app asked for when it got a fake port.
    pub(crate) fn set_asked(
        &self,
        transport: Transport,
        fake: u16,
        address: Option<SocketAddr>,
    ) -> Result<(), MemoryError> {
        self.write(page::asked(transport, fake), &encode_address(address))
    }

    /// Sets the fake port that stands for one on loopback; 0: none.
    pub(crate) fn set_fake(
        &self,
        transport: Transport,
        port: u16,
        fake: u16,
    ) -> Result<(), MemoryError> {
        self.write(page::fake(transport, port), &fake.to_le_bytes())
    }

    /// Says who is behind a slot whose connection is not decided yet.
    pub(crate) fn set_slot(&self, slot: Slot, ends: Ends) -> Result<(), MemoryError> {
        const LEN: usize = page::local(Slot(0)) + ADDRESS_LEN - page::outcome(Slot(0));
        let mut bytes = [0; LEN];
        let parts = [
            (page::outcome(slot), &page::PENDING.to_le_bytes()[..]),
            (page::remote(slot), &encode_address(ends.remote)),
            (page::local(slot), &encode_address(ends.local)),
        ];
        for (at, part) in parts {
            let at = at - page::outcome(slot);
            bytes[at..at + part.len()].copy_from_slice(part);
        }
        self.write(page::outcome(slot), &bytes)
    }

    /// Says what became of a slot's connection: one of [`page::CONNECTED`] and [`page::FAILED`].
    pub(crate) fn set_outcome(&self, slot: Slot, outcome: u32) -> Result<(), MemoryError> {
        self.write(page::outcome(slot), &outcome.to_le_bytes())
    }

    /// Lets the slot of a remote address of datagrams be found; false if there is no room.
    pub(crate) fn index(&self, remote: SocketAddr, slot: Slot) -> Result<bool, MemoryError> {
        let free = self.probe(remote, |entry| entry == 0)?;
        let Some(entry) = free else { return Ok(false) };
        self.write(page::index(entry), &(slot.0 + 1).to_le_bytes())?;
        Ok(true)
    }

    /// Undoes [`Memory::index`].
    pub(crate) fn unindex(&self, remote: SocketAddr, slot: Slot) -> Result<(), MemoryError> {
        match self.probe(remote, |entry| entry == slot.0 + 1)? {
            Some(entry) => self.write(page::index(entry), &[0; 4]),
            None => Ok(()),
        }
    }

    fn probe(
        &self,
        remote: SocketAddr,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Option<u32>, MemoryError> {
        let first = page::hash(remote);
        for entry in (0..page::INDEX_PROBES).map(|step| first.wrapping_add(step)) {
            let mut bytes = [0; 4];
            let at = page::index(entry) as u64;
            self.0.read_exact_at(&mut bytes, at).map_err(MemoryError::Write)?;
            if wanted(u32::from_le_bytes(bytes)) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<(), MemoryError> {
        self.0.write_all_at(bytes, at as u64).map_err(MemoryError::Write)
    }
}

/// Empty memory of the right size, which it keeps.
pub(crate) fn create() -> io::Result<File> {
    let file = sealable(NAME)?;
    file.set_len(page::LEN as u64)?;
    seal(&file, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)?;
    // Who opens it anew through /proc gets it as it is handed out.
    file.set_permissions(Permissions::from_mode(0o444))?;
    Ok(file)
}

/// An empty file in memory that can be sealed.
fn sealable(name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    Ok(memfd_create(name.as_c_str(), flags)?.into())
}

/// The same for a program. Where vm.memfd_noexec is set, such a file has to be asked for; before
/// Linux 6.3 there is no such thing.
pub(crate) fn sealable_program(name: &str) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = flags | MFdFlags::from_bits_retain(libc::MFD_EXEC);
    match memfd_create(CString::new(name)?.as_c_str(), executable) {
        Err(Errno::EINVAL) => sealable(name),
        result => Ok(result?.into()),
    }
}

/// Seals such a file; fcntl(2).
pub(crate) fn seal(file: &File, seals: SealFlag) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
    Ok(())
}

/// Each name with its NUL and an empty one last; what does not fit is left out.
fn list(names: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty() && !name.contains('\0')) {
        if bytes.len() + name.len() + 2 > page::SKIPPED_LEN {
            break;
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_out_can_be_read_alone_and_keeps_its_size() {
        let memory = Memory::of(create().unwrap(), &["git".into(), "make".into()]).unwrap();
        memory.set_hostname(Some("web-0")).unwrap();
        let shared = File::from(memory.share().unwrap());
        assert!(shared.write_all_at(&[1], 0).is_err());
        assert!(memory.0.set_len(0).is_err());
        assert_eq!(shared.metadata().unwrap().len(), page::LEN as u64);
        let read = |at: usize, len| {
            let mut bytes = vec![0; len];
            shared.read_exact_at(&mut bytes, at as u64).unwrap();
            bytes
        };
        assert_eq!(read(0, 8), page::MAGIC.to_le_bytes());
        assert_eq!(read(page::HOSTNAME, 6), b"web-0\0");
        assert_eq!(read(page::SKIPPED, 10), b"git\0make\0\0");
    }

    #[test]
    fn a_slot_is_found_by_its_remote_address_until_it_is_taken_back() {
        let memory = Memory::of(create().unwrap(), &[]).unwrap();
        let remote: SocketAddr = "10.96.0.10:53".parse().unwrap();
        let slots: Vec<Slot> = (0..page::INDEX_PROBES).map(Slot).collect();
        for slot in &slots {
            assert!(memory.index(remote, *slot).unwrap());
        }
        assert!(!memory.index(remote, Slot(99)).unwrap(), "no room is left");
        memory.unindex(remote, slots[3]).unwrap();
        assert!(memory.index(remote, Slot(99)).unwrap());
    }

    #[test]
    fn a_slot_is_written_where_its_parts_are_read() {
        let memory = Memory::of(create().unwrap(), &[]).unwrap();
        let (remote, local) = ("10.0.0.1:80".parse().ok(), "[2001:db8::1]:4711".parse().ok());
        let slot = Slot(70_000);
        memory.set_outcome(slot, page::CONNECTED).unwrap();
        memory.set_slot(slot, Ends { remote, local }).unwrap();
        let read = |at: usize| {
            let mut bytes = [0; ADDRESS_LEN];
            memory.0.read_exact_at(&mut bytes, at as u64).unwrap();
            bytes
        };
        assert_eq!(read(page::outcome(slot))[..4], page::PENDING.to_le_bytes());
        assert_eq!(read(page::remote(slot)), encode_address(remote));
        assert_eq!(read(page::local(slot)), encode_address(local));
    }

    #[test]
    fn too_many_names_are_cut_at_a_names_end() {
        let names = vec!["a-rather-long-name".to_owned(); 1000];
        let bytes = list(&names);
        assert!(bytes.len() <= page::SKIPPED_LEN);
        assert!(bytes.ends_with(b"name\0\0"));
    }
}
