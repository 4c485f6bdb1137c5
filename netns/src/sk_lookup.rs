//! Loading the sk_lookup programs and giving them the sockets to answer with.

mod keys;

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use aya::{
    Pod,
    maps::{HashMap, MapData, MapError, SockMap},
};
use socket2::{Domain, SockRef};

use crate::{
    Proto,
    bpf::{BpfError, Object, SK_LOOKUP, SOCKET_FILTER, attach, map_error},
    calls::Silent,
    steered::{BACKLOG, SteeredUdp, listen},
    sys::attach_filter,
};

pub(crate) use keys::{AddressKey, ConnectionKey, EndpointKey};

/// Index of the first listener in `sockets` that answers nobody; that of IPv6 is behind it.
const SILENT: u32 = 4;

/// Why a program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum SkLookupError {
    /// The sockets that it hands connections to.
    #[error("cannot open the sockets that receive steered traffic")]
    Sockets(#[source] io::Error),
    /// The network namespace to attach it to.
    #[error("cannot open the network namespace")]
    Namespace(#[source] io::Error),
    /// The program or its maps.
    #[error(transparent)]
    Program(#[from] BpfError),
}

/// The sockets that a program hands traffic to.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) tcp: Vec<TcpListener>,
    pub(crate) udp: Vec<SteeredUdp>,
}

impl Sockets {
    /// Opens a socket per protocol and family; IPv6 only where the kernel has it.
    pub(crate) fn open(protos: &[Proto]) -> io::Result<Self> {
        let mut sockets = Self::default();
        for proto in protos {
            sockets.open_one(*proto, Domain::IPV4)?;
            if let Err(error) = sockets.open_one(*proto, Domain::IPV6)
                && !is_missing_family(&error)
            {
                return Err(error);
            }
        }
        Ok(sockets)
    }

    fn open_one(&mut self, proto: Proto, domain: Domain) -> io::Result<()> {
        match proto {
            Proto::Tcp => self.tcp.push(listen(domain, BACKLOG)?),
            Proto::Udp => self.udp.push(SteeredUdp::bind(domain)?),
        }
        Ok(())
    }

    /// The kernel-wide unique numbers of the sockets.
    pub(crate) fn cookies(&self) -> io::Result<Vec<u64>> {
        let tcp = self.tcp.iter().map(|socket| SockRef::from(socket).cookie());
        let udp = self.udp.iter().map(|socket| SockRef::from(socket).cookie());
        tcp.chain(udp).collect()
    }
}

/// Whether the namespace has no such family of addresses.
pub(crate) fn is_missing_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::ENETUNREACH)
    )
}

/// A loaded program. Dropping it, or the death of the process, detaches it.
#[derive(Debug)]
pub(crate) struct Lookup {
    object: Object,
    link: Option<OwnedFd>,
}

impl Lookup {
    /// Loads an object and fills the maps that every program has. Nothing is attached yet.
    pub(crate) fn load(
        object: &[u8],
        sockets: &Sockets,
        own: &[IpAddr],
    ) -> Result<Self, SkLookupError> {
        let mut lookup = Self { object: Object::load(object)?, link: None };
        for ip in own {
            lookup.insert("own", AddressKey::from(*ip), 1)?;
        }
        for socket in &sockets.tcp {
            let address = socket.local_addr().map_err(SkLookupError::Sockets)?;
            lookup.hand_over_to(socket, Proto::Tcp, address)?;
        }
        for socket in &sockets.udp {
            let address = socket.local_addr().map_err(SkLookupError::Sockets)?;
            lookup.hand_over_to(socket, Proto::Udp, address)?;
        }
        Ok(lookup)
    }

    /// Attaches the program to the calling thread's network namespace.
    pub(crate) fn attach(&mut self, program: &'static str) -> Result<(), SkLookupError> {
        let namespace = File::open("/proc/thread-self/ns/net").map_err(SkLookupError::Namespace)?;
        let program = self.object.program(program, SK_LOOKUP)?;
        self.link = Some(attach(SK_LOOKUP, &program, namespace)?);
        Ok(())
    }

    /// Sets an entry of a hash map.
    pub(crate) fn insert<K: Pod>(
        &mut self,
        map: &'static str,
        key: K,
        value: u32,
    ) -> Result<(), BpfError> {
        let inserted = self.hash(map)?.insert(key, value, 0);
        inserted.map_err(|source| map_error(map, source))
    }

    /// Removes an entry of a hash map, if it is there.
    pub(crate) fn remove<K: Pod>(&mut self, map: &'static str, key: K) -> Result<(), BpfError> {
        match self.hash(map)?.remove(&key) {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            removed => removed.map_err(|source| map_error(map, source)),
        }
    }

    fn hash<K: Pod>(
        &mut self,
        map: &'static str,
    ) -> Result<HashMap<&mut MapData, K, u32>, BpfError> {
        HashMap::try_from(self.object.map(map)?).map_err(|source| map_error(map, source))
    }

    /// Has a listener that answers nobody stand for those of its family.
    pub(crate) fn silence_with(&mut self, silent: &Silent) -> Result<(), SkLookupError> {
        let address = silent.local_addr().map_err(SkLookupError::Sockets)?;
        let index = if address.is_ipv4() { SILENT } else { SILENT + 1 };
        Ok(self.set_socket(index, silent, Proto::Tcp, address)?)
    }

    /// Has a program choose what a socket receives.
    pub(crate) fn filter(
        &self,
        program: &'static str,
        socket: BorrowedFd<'_>,
    ) -> Result<(), BpfError> {
        let program = self.object.program(program, SOCKET_FILTER)?;
        attach_filter(socket, program.as_fd()).map_err(BpfError::Attach)
    }

    fn hand_over_to(
        &mut self,
        socket: &impl AsRawFd,
        proto: Proto,
        address: SocketAddr,
    ) -> Result<(), BpfError> {
        let index = u32::from(proto == Proto::Udp) + if address.is_ipv4() { 0 } else { 2 };
        self.set_socket(index, socket, proto, address)
    }

    fn set_socket(
        &mut self,
        index: u32,
        socket: &impl AsRawFd,
        proto: Proto,
        address: SocketAddr,
    ) -> Result<(), BpfError> {
        SockMap::try_from(self.object.map("sockets")?)
            .and_then(|mut map| map.set(index, socket, 0))
            .map_err(|source| map_error("sockets", source))?;
        self.insert("bound", EndpointKey::new(proto, address.port()), 1)
    }
}
