//! What was written to a pipe and may have to be written again to the next one. Pure.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::Bytes;

use crate::state::Violation;

/// A frame, and the descriptor that goes beside it.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) bytes: Bytes,
    pub(crate) descriptor: Option<Rc<OwnedFd>>,
}

impl From<Bytes> for Item {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, descriptor: None }
    }
}

/// Numbered frames that left and that the other end has not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    frames: VecDeque<Item>,
    /// The number of the first of them.
    first: u64,
    /// How many of them were written to the present pipe.
    written: usize,
    bytes: usize,
}

impl Kept {
    /// How many bytes are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many frames are kept.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether a descriptor goes beside one of them.
    pub(crate) fn has_descriptors(&self) -> bool {
        self.frames.iter().any(|frame| frame.descriptor.is_some())
    }

    /// Whether there is something to write again.
    pub(crate) fn has_next(&self) -> bool {
        self.written < self.frames.len()
    }

    /// What is to be written again.
    pub(crate) fn next(&mut self) -> Option<Item> {
        let frame = self.frames.get(self.written)?.clone();
        self.written += 1;
        Some(frame)
    }

    /// A frame is written for the first time, and nothing was left to write again.
    pub(crate) fn add(&mut self, frame: Item) {
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        self.written = self.frames.len();
    }

    /// The other end has every frame below this number.
    pub(crate) fn acknowledge(&mut self, below: u64) -> Result<(), Violation> {
        let known = below.checked_sub(self.first).and_then(|known| usize::try_from(known).ok());
        let known = known.filter(|known| *known <= self.frames.len());
        let known = known.ok_or(Violation::Number(below))?;
        for frame in self.frames.drain(..known) {
            self.bytes -= frame.bytes.len();
        }
        self.first = below;
        self.written = self.written.saturating_sub(known);
        Ok(())
    }

    /// There is another pipe, whose other end has every frame below this number.
    pub(crate) fn rewind(&mut self, below: u64) -> Result<(), Violation> {
        self.acknowledge(below)?;
        self.written = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Kept {
        let mut kept = Kept::default();
        for name in ["a", "bb", "ccc"] {
            kept.add(Bytes::from(name).into());
        }
        kept
    }

    fn next(kept: &mut Kept) -> Option<Bytes> {
        kept.next().map(|item| item.bytes)
    }

    #[test]
    fn what_was_not_acknowledged_is_written_again_in_its_order() {
        let mut kept = three();
        kept.acknowledge(1).unwrap();
        assert!(!kept.has_next() && kept.next().is_none(), "it is on its way");
        kept.rewind(1).unwrap();
        assert!(kept.has_next());
        assert_eq!(next(&mut kept).unwrap(), "bb");
        assert_eq!(next(&mut kept).unwrap(), "ccc");
        assert_eq!((next(&mut kept), kept.bytes()), (None, 5));
    }

    #[test]
    fn a_pipe_that_breaks_while_frames_are_written_again_loses_none() {
        let mut kept = three();
        kept.rewind(0).unwrap();
        assert_eq!(next(&mut kept).unwrap(), "a");
        kept.acknowledge(1).unwrap();
        assert_eq!(next(&mut kept).unwrap(), "bb");
        kept.rewind(2).unwrap();
        assert_eq!((next(&mut kept).unwrap(), next(&mut kept)), ("ccc".into(), None));
    }

    #[test]
    fn nobody_has_what_was_not_sent_and_nobody_loses_what_it_had() {
        let mut kept = three();
        assert_eq!(kept.acknowledge(4), Err(Violation::Number(4)));
        kept.acknowledge(3).unwrap();
        for number in [2, 4, u64::MAX] {
            assert_eq!(kept.rewind(number), Err(Violation::Number(number)));
        }
        assert_eq!(kept.bytes(), 0);
    }
}
