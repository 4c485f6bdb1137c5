//! Copies what comes in to a target, beside the target's own path.
//!
//! ```text
//!   network ─► interface ─┬─► IP ─► TCP ─► the target (never touched)
//!                         │
//!                         └─► filter (BPF) ─► packet socket ─► Capture::read ─► Flows
//!                             port? ours?     drops and counts
//!                             anything new?   when it is full
//! ```
//!
//! The kernel queues a reference to each chosen packet, not a copy; the copy is made when
//! [`Capture::read`] runs. A reader that is too slow loses copies, which [`Capture::dropped`]
//! counts, and never slows the target down.

mod filter;
mod pace;
mod plain;
mod socket;
mod sys;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Instant,
};

use crate::{
    BpfError, Proto, TargetNet,
    privileges::{Capability, Missing, require},
    reassembly::{FlowKey, Flows, Ports},
};

use filter::Filter;
use pace::Pace;
use plain::PlainFilter;
use socket::{PacketSocket, Slots, Version};

/// Why packets cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The rights do not suffice.
    #[error(transparent)]
    NotAllowed(#[from] Missing),
    /// A packet socket could not be opened or set up.
    #[error("cannot open a packet socket")]
    Socket(#[source] io::Error),
    /// A packet socket could not begin or cease to receive.
    #[error("cannot bind a packet socket")]
    Bind(#[source] io::Error),
    /// The filter in the kernel.
    #[error(transparent)]
    Filter(#[from] BpfError),
    /// What wakes the reader.
    #[error("cannot set up the capture's timer")]
    Pace(#[source] io::Error),
}

/// What it takes.
const NEEDS: [Capability; 2] = [Capability::NetRaw, Capability::Bpf];

/// The packets that come in to some ports of a target, from all interfaces of the namespace but
/// loopback; behind a mesh those of TCP from loopback alone, where its proxy brings them.
///
/// As a file descriptor it becomes readable when [`Capture::read`] should be called. It wakes its
/// reader with the first packet after a silence, then every few milliseconds while packets come: so
/// it may be waited for in any way, edge-triggered too, at little cost for the target.
#[derive(Debug)]
pub struct Capture {
    pace: Pace,
    sockets: Vec<PacketSocket>,
    filter: Chooser,
    ports: Ports,
    /// TCP ports that were removed since the last read.
    closed: Vec<u16>,
    /// Bytes that were read since there was nothing to read.
    bytes: usize,
    /// Drops that were not reported yet.
    dropped: u64,
    /// There were drops since it was last looked how far connections are.
    suspicious: bool,
    /// How far connections were when packets had been dropped.
    suspects: Vec<(FlowKey, u32)>,
    /// Memory for packets; there is none while there is no port.
    slots: Option<Slots>,
}

/// Who chooses what is copied.
#[derive(Debug)]
enum Chooser {
    Program(Box<Filter>),
    Plain(PlainFilter),
}

impl Capture {
    /// Opens the sockets in the calling thread's network namespace. Nothing is copied until a port
    /// is added. Only what is sent to one of the target's own addresses counts.
    pub fn open(target: &TargetNet) -> Result<Self, CaptureError> {
        require(&NEEDS)?;
        match Filter::load(target) {
            Ok(filter) => Self::open_with(Chooser::Program(Box::new(filter)), target),
            // In a user namespace the capability for BPF is worth nothing.
            Err(error) if error.is_forbidden() && !target.mesh => Self::open_plain(target),
            Err(error) => Err(error.into()),
        }
    }

    /// The same with a filter of the older kind, where no BPF program may be loaded. A mesh can't
    /// stand before the target, and what says nothing new is copied as well.
    pub fn open_plain(target: &TargetNet) -> Result<Self, CaptureError> {
        Self::open_with(Chooser::Plain(PlainFilter::new(target)), target)
    }

    fn open_with(filter: Chooser, target: &TargetNet) -> Result<Self, CaptureError> {
        let pace = Pace::new().map_err(CaptureError::Pace)?;
        let mut sockets = Vec::new();
        for version in [Version::V4, Version::V6] {
            if target.own.iter().any(|ip| ip.is_ipv4() == (version == Version::V4)) {
                let socket = PacketSocket::open(version).map_err(CaptureError::Socket)?;
                match &filter {
                    Chooser::Program(program) => program.attach(&socket)?,
                    Chooser::Plain(plain) => {
                        plain.attach(&socket).map_err(CaptureError::Socket)?;
                    }
                }
                pace.add(socket.as_fd()).map_err(CaptureError::Pace)?;
                sockets.push(socket);
            }
        }
        Ok(Self {
            pace,
            sockets,
            filter,
            ports: Ports::new(),
            closed: Vec::new(),
            bytes: 0,
            dropped: 0,
            suspicious: false,
            suspects: Vec::new(),
            slots: None,
        })
    }

    /// Begins to copy what is new at a port. Adding it again changes nothing.
    pub fn add(&mut self, proto: Proto, port: u16) -> Result<(), CaptureError> {
        self.choose(proto, port, true)?;
        if self.ports.is_empty() {
            for socket in &self.sockets {
                socket.start().map_err(CaptureError::Bind)?;
            }
        }
        self.ports.insert(proto, port);
        Ok(())
    }

    fn choose(&mut self, proto: Proto, port: u16, on: bool) -> Result<(), CaptureError> {
        match &mut self.filter {
            Chooser::Program(filter) => Ok(filter.set(proto, port, on)?),
            Chooser::Plain(filter) => {
                filter.set(proto, port, on, &self.sockets).map_err(CaptureError::Socket)
            }
        }
    }

    /// Ceases to copy a port. Its flows end with [`Lost`](crate::reassembly::Event::Lost) at the
    /// next [`Capture::read`], which is due soon.
    pub fn remove(&mut self, proto: Proto, port: u16) -> Result<(), CaptureError> {
        if !self.ports.remove(proto, port) {
            return Ok(());
        }
        if proto == Proto::Tcp {
            self.closed.push(port);
            self.pace.tick().map_err(CaptureError::Pace)?;
        }
        self.choose(proto, port, false)?;
        if self.ports.is_empty() {
            for socket in &self.sockets {
                socket.stop().map_err(CaptureError::Bind)?;
            }
        }
        Ok(())
    }

    /// Reads a bounded number of packets and feeds them to `flows`. True says that there was
    /// something, so `flows` may have events and there may be more to read; false that there was
    /// nothing, so that it is time to wait. Never blocks.
    pub fn read(&mut self, flows: &mut Flows) -> io::Result<bool> {
        let now = Instant::now();
        self.pace.awake()?;
        let closed = !self.closed.is_empty();
        for port in self.closed.drain(..) {
            flows.close_port(port, now);
        }
        let bytes = self.read_packets(flows, now)?;
        self.bytes += bytes;
        for verdict in flows.verdicts() {
            if let Chooser::Program(filter) = &mut self.filter {
                filter.decide(verdict).map_err(io::Error::other)?;
            }
        }
        if bytes > 0 || closed || self.look_for_losses(flows, now)? {
            self.pace.tick()?;
            return Ok(true);
        }
        let sockets = self.sockets.iter().map(AsFd::as_fd);
        self.pace.rest(std::mem::take(&mut self.bytes), sockets)?;
        self.slots = self.slots.take().filter(|_| !self.ports.is_empty());
        Ok(false)
    }

    fn read_packets(&mut self, flows: &mut Flows, now: Instant) -> io::Result<usize> {
        let slots = self.slots.get_or_insert_with(Slots::new);
        let mut bytes = 0;
        for socket in &mut self.sockets {
            bytes += socket.read(slots, &mut |frame, meta| {
                flows.packet(&self.ports, frame, meta, now);
            })?;
        }
        Ok(bytes)
    }

    /// Lets so many TCP connections begin until the next call, and leaves further ones out whole,
    /// before anything of them is copied; none is no limit. The older kind of filter has none.
    pub fn admit(&mut self, connections: Option<u32>) -> Result<(), CaptureError> {
        match &mut self.filter {
            Chooser::Program(filter) => Ok(filter.admit(connections)?),
            Chooser::Plain(_) => Ok(()),
        }
    }

    /// Connections that were left out because there were more than [`Capture::admit`] lets begin,
    /// since it was opened.
    pub fn left_out(&mut self) -> Result<u64, CaptureError> {
        match &mut self.filter {
            Chooser::Program(filter) => Ok(filter.left_out()?),
            Chooser::Plain(_) => Ok(0),
        }
    }

    /// Packets that were dropped because they were not read in time, since the last call.
    pub fn dropped(&mut self) -> io::Result<u64> {
        self.count_drops()?;
        Ok(std::mem::take(&mut self.dropped))
    }

    fn count_drops(&mut self) -> io::Result<()> {
        for socket in &mut self.sockets {
            let dropped = socket.dropped()?;
            self.dropped += dropped;
            self.suspicious |= dropped > 0;
        }
        Ok(())
    }

    /// Ends flows of which the last packets were dropped: nothing else would tell. To be called
    /// when everything has been read. What the filter knew when drops had been seen must have been
    /// read by the next time, or it will never come. True if a flow has ended.
    fn look_for_losses(&mut self, flows: &mut Flows, now: Instant) -> io::Result<bool> {
        let before = flows.counts().lost;
        for (key, end) in self.suspects.drain(..) {
            flows.expect_up_to(&key, end, now);
        }
        self.count_drops()?;
        if std::mem::take(&mut self.suspicious)
            && let Chooser::Program(filter) = &mut self.filter
        {
            let ends = filter.ends(flows.followed());
            self.suspects = ends.map_err(io::Error::other)?;
        }
        Ok(flows.counts().lost > before)
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pace.as_fd()
    }
}

impl AsRawFd for Capture {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
