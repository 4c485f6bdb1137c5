//! The program on its way: inflated and hashed as it comes, written to a file in memory.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_COMPUTE_ADLER32, TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_PARSE_ZLIB_HEADER,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::digest::{Expected, Hasher};
use crate::sys::{self, Errno, Fd};
use crate::text::Line;
use crate::wire::{LARGEST_PROGRAM, REFUSAL};

const FLAGS: u32 =
    TINFL_FLAG_PARSE_ZLIB_HEADER | TINFL_FLAG_COMPUTE_ADLER32 | TINFL_FLAG_HAS_MORE_INPUT;
/// A power of two, as the decompressor asks of a window that wraps, and no less than 32 KiB.
const WINDOW: usize = 64 << 10;
const CHUNK: usize = 64 << 10;

/// Why a program is not taken.
pub enum Refusal {
    Size(u64),
    Damaged,
    Longer,
    Shorter,
    Trailing,
    Different,
    Memory(Errno),
    Execution(Errno),
}

impl Refusal {
    /// The sentence for the peer.
    pub fn line(&self) -> Line {
        let line = Line::new(REFUSAL);
        let because = |line: Line, errno: &Errno| {
            line.text(": ").text(errno.name()).text(" (").number(u64::from(errno.0)).text(")")
        };
        match self {
            Self::Size(size) => line
                .text("a program of ")
                .number(*size)
                .text(" bytes is not taken, the largest has ")
                .number(LARGEST_PROGRAM),
            Self::Damaged => line.text("the compressed program is damaged"),
            Self::Longer => line.text("the program is longer than announced"),
            Self::Shorter => line.text("the program is shorter than announced"),
            Self::Trailing => line.text("something follows the program"),
            Self::Different => line.text("the program's digest is not the expected one"),
            Self::Memory(errno) => because(line.text("no memory file for the program"), errno),
            Self::Execution(errno) => because(line.text("the program may not be executed"), errno),
        }
        .end()
    }
}

/// The room in which programs are inflated, large and therefore made once.
pub struct Workshop {
    inflater: DecompressorOxide,
    window: [u8; WINDOW],
    chunk: [u8; CHUNK],
}

impl Workshop {
    /// An empty one.
    pub fn new() -> Self {
        Self { inflater: DecompressorOxide::new(), window: [0; WINDOW], chunk: [0; CHUNK] }
    }

    /// Reads what has come and forgets it; returns whether that was the last.
    pub fn discard(&mut self, peer: &Fd) -> bool {
        !matches!(sys::read(peer, &mut self.chunk), Ok(1..) | Err(Errno::AGAIN))
    }
}

/// How far a reception is.
pub enum Step {
    /// More is to come.
    More,
    /// The peer is gone.
    Lost,
    /// The program is there.
    Complete(Fd),
}

/// One program's reception.
pub struct Reception {
    expected: Expected,
    header: [u8; 8],
    header_length: usize,
    file: Option<Fd>,
    hasher: Hasher,
    announced: u64,
    inflated: u64,
}

impl Reception {
    /// Nothing received yet.
    pub fn new(expected: Expected, workshop: &mut Workshop) -> Self {
        workshop.inflater.init();
        Self {
            expected,
            header: [0; 8],
            header_length: 0,
            file: None,
            hasher: Hasher::new(),
            announced: 0,
            inflated: 0,
        }
    }

    /// Takes what has come from the peer.
    pub fn advance(&mut self, peer: &Fd, workshop: &mut Workshop) -> Result<Step, Refusal> {
        let Workshop { inflater, window, chunk } = workshop;
        let received = match sys::read(peer, chunk) {
            Err(Errno::AGAIN) => return Ok(Step::More),
            Err(_) | Ok(0) => return Ok(Step::Lost),
            Ok(length) => chunk.get(..length).unwrap_or(&[]),
        };
        let received = self.read_header(received)?;
        if received.is_empty() {
            return Ok(Step::More);
        }
        self.inflate(inflater, window, received)
    }

    /// Takes the length, and makes the file once it is there; returns what follows.
    fn read_header<'a>(&mut self, received: &'a [u8]) -> Result<&'a [u8], Refusal> {
        if self.file.is_some() {
            return Ok(received);
        }
        let missing = self.header.get_mut(self.header_length..).unwrap_or(&mut []);
        let taken = missing.len().min(received.len());
        let (head, rest) = received.split_at(taken);
        for (place, byte) in missing.iter_mut().zip(head) {
            *place = *byte;
        }
        self.header_length += taken;
        if self.header_length == self.header.len() {
            self.announced = u64::from_le_bytes(self.header);
            if !(1..=LARGEST_PROGRAM).contains(&self.announced) {
                return Err(Refusal::Size(self.announced));
            }
            self.file = Some(sys::memory_file().map_err(Refusal::Memory)?);
        }
        Ok(rest)
    }

    fn inflate(
        &mut self,
        inflater: &mut DecompressorOxide,
        window: &mut [u8; WINDOW],
        mut received: &[u8],
    ) -> Result<Step, Refusal> {
        loop {
            // A remainder of the window's size, so it fits.
            let place = (self.inflated % WINDOW as u64) as usize;
            let (status, taken, made) = decompress(inflater, received, window, place, FLAGS);
            received = received.get(taken..).unwrap_or(&[]);
            self.keep(window.get(place..place + made).unwrap_or(&[]))?;
            match status {
                TINFLStatus::Done if !received.is_empty() => return Err(Refusal::Trailing),
                TINFLStatus::Done => return self.finish(),
                TINFLStatus::NeedsMoreInput => return Ok(Step::More),
                TINFLStatus::HasMoreOutput => {}
                _ => return Err(Refusal::Damaged),
            }
        }
    }

    fn keep(&mut self, inflated: &[u8]) -> Result<(), Refusal> {
        self.inflated += inflated.len() as u64;
        if self.inflated > self.announced {
            return Err(Refusal::Longer);
        }
        self.hasher.add(inflated);
        let Some(file) = &self.file else { return Ok(()) };
        sys::write_all(file, inflated).map_err(Refusal::Memory)
    }

    fn finish(&mut self) -> Result<Step, Refusal> {
        if self.inflated < self.announced {
            return Err(Refusal::Shorter);
        }
        let hasher = core::mem::replace(&mut self.hasher, Hasher::new());
        if !self.expected.is(hasher) {
            return Err(Refusal::Different);
        }
        let file = self.file.take().ok_or(Refusal::Shorter)?;
        sys::may_execute(&file).map_err(Refusal::Execution)?;
        Ok(Step::Complete(file))
    }
}
