//! Memory that frames are read into, used again once they are no longer kept.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};

use crate::relay::Near;

const BLOCK: usize = 256 << 10;
/// So many full blocks are watched for their frames to go; of more than these, each is given back
/// by its last frame.
const WATCHED: usize = 16;

/// Blocks of memory. A frame keeps its share of a block until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    block: BytesMut,
    full: VecDeque<BytesMut>,
}

impl Arena {
    /// Reads at most `max` bytes from the socket right behind `header`; `None` at its end.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut impl Near,
        header: &[u8],
        max: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        if self.block.capacity() < header.len() + max {
            self.next_block();
        }
        self.block.put_slice(header);
        let read = socket.poll_next(cx, &mut (&mut self.block).limit(max));
        match read {
            Poll::Ready(Ok(n)) if n > 0 => Poll::Ready(Ok(Some(self.block.split().freeze()))),
            other => {
                self.block.clear();
                other.map_ok(|_| None)
            }
        }
    }

    /// The block that was full first is the first one to be free.
    fn next_block(&mut self) {
        let freed = self.full.front_mut().is_some_and(|oldest| oldest.try_reclaim(BLOCK));
        let next = if freed { self.full.pop_front() } else { None };
        let next = next.unwrap_or_else(|| BytesMut::with_capacity(BLOCK));
        let full = std::mem::replace(&mut self.block, next);
        if full.capacity() > 0 && self.full.len() < WATCHED {
            self.full.push_back(full);
        }
    }
}
